"""What a model file says of itself, against its contract.json: the hash in that says nothing of its own fields."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

from softedge.errors import UserError
from softedge.export.base import open_format
from softedge.export.contract import FILE, again
from softedge.records import Artifact

_ENTRIES = ("labels", "input")  # ``softedge.labels`` and ``softedge.input`` in the file


def entries(stored: Mapping[str, str]) -> dict[str, Any]:
    """Labels and preprocessing from the metadata of a file, which holds them as JSON by these names."""
    return {name: json.loads(stored[name]) for name in _ENTRIES if name in stored}


def contradictions(artifact: Artifact) -> list[str]:
    """How the contract's labels and preprocessing differ from those in the file, a line for each; mostly empty.

    A file that carries none, or that this machine cannot read, contradicts nothing.
    """
    file, folder = artifact.path.name, artifact.path.parent
    mend = f"one of them was changed after the export; restore {folder / FILE}, or {again(folder)}"
    try:
        own = open_format(artifact.target).metadata(artifact)
    except UserError:
        return []
    except ValueError as error:
        return [f"the metadata of {file} is damaged ({error}); {again(folder)}"]
    labels, spec = artifact.labels, artifact.spec.to_dict()
    pairs = list(zip_longest(labels, own.get("labels", labels)))
    different = [index for index, (ours, theirs) in enumerate(pairs) if ours != theirs]
    lines = []
    if different:
        ours, theirs = map(_named, pairs[different[0]])
        more = f" (and {len(different) - 1} more differ)" if len(different) > 1 else ""
        lines.append(f"label {different[0]} is {ours} in {FILE}, {theirs} in {file}{more}")
    for key, value in own.get("input", {}).items():
        if spec.get(key, value) != value:
            lines.append(f"{key} is {spec[key]} in {FILE}, {value} in {file}")
    return [f"{line}: {mend}" for line in lines]


def _named(label: str | None) -> str:
    return "absent" if label is None else repr(label)
