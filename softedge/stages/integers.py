"""Integers that an export can take over: int8 files of the run in formats that another format reads."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from softedge.export import contract
from softedge.export.base import Format
from softedge.records import Artifact
from softedge.run import Run, differences


def others(
    run: Run, format_: Format, precision: str, recipe: Mapping[str, Any], inputs: Mapping[str, str]
) -> list[Artifact]:
    """Files of other formats, exported with the same settings and inputs, whose integers ``format_`` can take over."""
    if precision not in format_.searchable or not format_.integers_from:
        return []
    files = []
    for name, result in run.results("export").items():
        folder = run.folder(f"export/{name}")
        same = own(result.inputs) == inputs and not differences(result.recipe, recipe)
        if not same or not (folder / contract.FILE).is_file():
            continue
        other = contract.read(folder)
        if other.precision == precision and other.path.suffix in format_.integers_from:
            files.append(other)
    return files


def own(inputs: Mapping[str, str]) -> dict[str, str]:
    """What an export reads besides other exports."""
    return {name: digest for name, digest in inputs.items() if not name.startswith("export/")}


def reading(format_: Format, others: Sequence[Artifact]) -> Format:
    """A copy of the format with these files to take integers from."""
    if not others:
        return format_
    changed = copy.copy(format_)
    changed.others = tuple(others)
    return changed
