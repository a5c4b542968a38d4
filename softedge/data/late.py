"""Images that are no longer the files that were looked at, found after the data stage: set aside, told and counted.

An image is one of them when its source is gone, damaged or another picture, and no good copy of it is in the run. Files
whose stamp has not changed (``data.stamps``) are not read again.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from softedge.data import decoding, stamps
from softedge.data.decoding import BadImage
from softedge.data.images import Data, EncodedImages, Images
from softedge.errors import UserError
from softedge.machine.threads import cores
from softedge.progress import plural, say
from softedge.records import Outcome, Result
from softedge.run import write_json

COPIES = ".copies.json"  # stamps of the run's copies, in the run folder
RECORD = "set_aside"  # in the details of a result
SHOWN = 5
LEAST = 0.5  # of the images of a split: with fewer a result says little of the run's data (assumption, not measured)
_KINDS = {"pretrain": "training", "train": "labelled training", "test": "test"}
_REMEDY = "bring them back, or make the run without them: softedge deploy --update --out RUN"


def without_lost(root: Path, data: Data, tell: bool = True) -> Data:
    """The data without the images that can no longer be used.  root: of the run.

    May be called again at any time: what was brought back is there again.  tell: say which are newly set aside.
    """
    reasons: dict[str, str] = {}
    splits = {}
    sources, known = stamps.remembered(root / stamps.FILE), stamps.remembered(root / COPIES)
    kept: dict[str, Any] = {}
    for split in ("pretrain", "test"):
        images = getattr(data, split)
        lost = _lost(images.every, sources, known, kept) if isinstance(images.every, EncodedImages) else {}
        reasons |= {images.every.names[row]: why for row, why in lost.items()}
        splits[split] = images.without(sorted(lost))
        if split == "pretrain":
            first = len(data.train.every)
            splits["train"] = data.train.without(sorted(row for row in lost if row < first))
    if kept != known:
        with contextlib.suppress(OSError, UserError):  # they only save time
            write_json(root / COPIES, kept)
    new = {name: why for name, why in reasons.items() if name not in data.aside}
    if new and tell:
        aside = plural(len(new), "image can no longer be used and is", "images can no longer be used and are")
        say(f"data: {aside} set aside: {_shown(new)}")
    return replace(data, aside=reasons, **splits)


def _lost(
    images: EncodedImages, sources: Mapping[str, Any], known: Mapping[str, Any], kept: dict[str, Any]
) -> dict[int, str]:
    """Row -> why the image can no longer be used.

    sources: stamps of the files.  known, kept: those of the run's copies, of before and for the next time.
    """
    if not images.hashes:
        return {}

    def same(row: int) -> bool:
        found, _ = stamps.hashed(
            images.source_file(row), lambda: images.read_source(row), sources.get(images.names[row])
        )
        return found == images.hashes[row]

    with ThreadPoolExecutor(cores()) as pool:
        suspects = [row for row, good in enumerate(pool.map(same, range(len(images)))) if not good]
        copies = list(pool.map(lambda row: _copy(images, row, known), suspects))
    lost = {}
    for row, (digest, stamp) in zip(suspects, copies):
        if stamp is not None:
            kept[images.hashes[row]] = [stamp, digest]
        if digest != images.hashes[row]:
            lost[row] = _why(images, row) + ("; the run's copy is damaged, too" if digest else "")
    return lost


def _copy(images: EncodedImages, row: int, known: Mapping[str, Any]) -> tuple[str, stamps.Stamp | None]:
    """The sha256 of the run's copy, "" where there is none, and its stamp."""
    path = images.copy(row)
    return (
        ("", None) if path is None else stamps.hashed(path, lambda: decoding.read(path), known.get(images.hashes[row]))
    )


def _why(images: EncodedImages, row: int) -> str:
    try:
        data = images.read_source(row)
        if hashlib.sha256(data).hexdigest() != images.hashes[row]:
            decoding.decode(data, white=images.white)
    except BadImage as error:
        return str(error)
    return "it has changed since the run looked at it"


def _shown(reasons: Mapping[str, str]) -> str:
    shown = "; ".join(f"{name} ({why})" for name, why in list(reasons.items())[:SHOWN])
    return shown + (f"; and {len(reasons) - SHOWN:,} more" if len(reasons) > SHOWN else "")


def record(data: Data) -> dict[str, Any]:
    """What of the data was set aside, for a result: split -> n, of, names (the first), sha256 (of all names)."""
    parts = {split: counted(getattr(data, split)) for split in _KINDS}
    return {split: values for split, values in parts.items() if values}


def counted(images: Images, rows: np.typing.NDArray[np.int64] | None = None) -> dict[str, Any]:
    """n, of, names and sha256 of what is set aside of ``images``, or of some rows of ``every``; {} for nothing."""
    asked = np.arange(len(images.every)) if rows is None else rows
    gone = _gone(images, asked)
    if not len(gone):
        return {}
    names = [str(images.every.names[row]) for row in gone]
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
    return {"n": len(names), "of": len(asked), "names": names[:SHOWN], "sha256": digest}


def recorded(outcome: Outcome, values: Mapping[str, Any]) -> Outcome:
    """``outcome`` with what was set aside in its details.  values: of ``record``."""
    return replace(outcome, details={**outcome.details, RECORD: dict(values)}) if values else outcome


def tell_change(stage: str, result: Result, data: Data) -> None:
    """Say where a stage that was done before was done on other images than could be used now; its result stands."""
    had, has = result.details.get(RECORD) or {}, record(data)
    for split, kind in _KINDS.items():
        before, now = had.get(split, {}), has.get(split, {})
        if before != now:
            of = len(getattr(data, split).every)
            say(
                f"{stage}: was done with {of - before.get('n', 0):,} of {of:,} {kind} images, "
                f"{of - now.get('n', 0):,} can be used now; its result stands, --force does it again"
            )


def require(data: Data, *splits: str) -> None:
    """UserError where too few images of a split are left to train or to measure on, or none of one of its classes."""
    for split in splits:
        images: Images = getattr(data, split)
        require_of(data, images, np.arange(len(images.every)), f"{_KINDS[split]} images")
        for label in np.unique(images.every.labels) if split != "pretrain" else ():
            if label >= 0 and not (images.labels == label).any():
                every = images.every
                names = [str(every.names[row]) for row in np.flatnonzero(every.labels == label).tolist()]
                gone = {name: data.aside[name] for name in names}
                raise UserError(
                    f"all {plural(len(gone), f'{_KINDS[split]} image', f'{_KINDS[split]} images')} of the class "
                    f"'{data.classes[label]}' can no longer be used: {_shown(gone)}; {_REMEDY}"
                )


def require_of(data: Data, images: Images, rows: np.typing.NDArray[np.int64], what: str) -> None:
    """The same for some rows of ``every``, without a look at classes.  what: these images, in words."""
    gone = counted(images, rows)
    if gone and (gone["of"] - gone["n"] == 0 or gone["of"] - gone["n"] < LEAST * gone["of"]):
        reasons = {name: data.aside[name] for name in gone["names"]}
        more = f"; and {gone['n'] - len(reasons):,} more" if gone["n"] > len(reasons) else ""
        raise UserError(
            f"{gone['n']:,} of {gone['of']:,} {what} can no longer be used, too many to go on without: "
            f"{_shown(reasons)}{more}; {_REMEDY}"
        )


def _gone(images: Images, rows: np.typing.NDArray[np.int64]) -> np.typing.NDArray[np.int64]:
    """Those of some rows of ``every`` that are set aside."""
    return np.setdiff1d(rows, np.arange(len(images)) if images.rows is None else images.rows)
