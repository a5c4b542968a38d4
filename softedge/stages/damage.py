"""What no longer is as its stage left it: a report is written without it, and must not pass for a whole one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

from softedge import config
from softedge.errors import UserError
from softedge.run import Run, missing, read_json, sha256_of
from softedge.stages.opening import refuse_edited


def problems(run: Run) -> list[str]:
    """A line for everything of the run that is damaged, or was changed since: records, weights, arrays, exports."""
    lines: dict[str, None] = {}
    for check in _checks(run):
        try:
            check()
        except UserError as error:
            lines[str(error)] = None
    return list(lines)


def _checks(run: Run) -> Iterator[Callable[[], object]]:
    from softedge.export import contract

    def files(stage: str) -> None:
        done = run.result(stage)
        if done is None:
            return
        for name in (*done.weights, *done.arrays):
            sha256_of(run, f"{stage}/{name}")
        if gone := missing(run, stage, done):
            raise UserError(f"{run.folder(stage)} no longer has {', '.join(gone)}; bring it back, or repeat the stage")

    for path in sorted(run.root.rglob("result.json")):
        stage = path.parent.relative_to(run.root)
        if not any(part.startswith(".") for part in stage.parts):  # .previous
            yield functools.partial(files, stage.as_posix())
    for path in sorted(run.folder("export").glob(f"*/{contract.FILE}")):
        yield functools.partial(contract.read, path.parent)
    for pattern in ("plan.json", "gate.json", "data/index.json", "bench/*/samples.json"):
        for path in sorted(run.root.glob(pattern)):
            yield functools.partial(read_json, path)
    yield lambda: refuse_edited(run, config.load(str(run.root / "recipe.toml")))
