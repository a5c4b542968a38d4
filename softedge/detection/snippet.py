"""Ready code beside an exported detector: finds objects in photos, and checks itself on a golden picture.

The templates are in ``snippets``, one a format; a photo is turned and laid on white as for classifiers.
"""

from __future__ import annotations

from pathlib import Path

from softedge.export import contract
from softedge.export.snippet import chosen, preprocessing, white
from softedge.run import write_text

TEMPLATES = Path(__file__).parent / "snippets"


def write(folder: Path) -> Path:
    """Write ``folder/snippets/run.py`` for the detector in ``folder``, whose contract is there."""
    values = contract.describe(folder)
    text = (TEMPLATES / f"{values['target']}.py.txt").read_text()
    facts = ["white"] if values.get("white") else []
    upright = chosen(preprocessing(".py.txt", "upright"), facts).replace("@WHITE@", white(values))
    text = text.replace("@UPRIGHT@", upright).replace("@MODEL@", values["model"])
    path = folder / "snippets" / "run.py"
    write_text(path, text)
    return path
