"""The same package for the same network: coremltools draws new identifiers and orders maps anew each time."""

from __future__ import annotations

import json
import uuid
from pathlib import Path


def make_reproducible(package: Path) -> None:
    """Rewrite the manifest with identifiers that follow from its items, and the model with its maps in order."""
    from coremltools.proto import Model_pb2

    manifest = package / "Manifest.json"
    values = json.loads(manifest.read_text())
    items = values["itemInfoEntries"]
    new = {old: str(uuid.uuid5(uuid.NAMESPACE_URL, item["path"])) for old, item in items.items()}
    values["itemInfoEntries"] = {new[old]: items[old] for old in sorted(items, key=lambda old: new[old])}
    values["rootModelIdentifier"] = new[values["rootModelIdentifier"]]
    manifest.write_text(json.dumps(values, indent=4) + "\n")
    path = package / "Data" / values["itemInfoEntries"][values["rootModelIdentifier"]]["path"]
    model = Model_pb2.Model()
    model.ParseFromString(path.read_bytes())
    path.write_bytes(model.SerializeToString(deterministic=True))
