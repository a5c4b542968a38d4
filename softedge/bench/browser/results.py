"""What a browser may post, and nothing more: sizes, types and lengths are checked before anything is believed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from softedge.bench.browser.server import Refused

MOST_SAMPLES = 1_000_000  # per artifact: an hour at 3.6 ms
MOST_BYTES = 64 << 20  # of a posted result
MOST_FEATURES = 4096  # columns of an output that is not one probability per label
_MOST_MS = 3.6e6

Milliseconds = Annotated[float, Field(ge=0.0, le=_MOST_MS, allow_inf_nan=False)]
Words = Annotated[str, StringConstraints(max_length=400)]


class Posted(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class About(Posted):
    """The browser, as it describes itself when it opens the page."""

    user_agent: Words
    platform: Words = ""
    model: Words = ""
    cores: int | None = Field(default=None, ge=1, le=4096)
    memory_gb: float | None = Field(default=None, ge=0, le=4096)
    screen: Words = ""
    secure_context: bool
    cross_origin_isolated: bool
    webgpu: Words = ""  # the adapter, empty when there is none
    wake_lock: bool
    timer_resolution_ms: Milliseconds


class Beat(Posted):
    """A sign of life, every two seconds."""

    progress: float = Field(ge=0.0, le=1.0)
    hidden: bool


class Failure(Posted):
    """Why the page gave up."""

    reason: Words


class Row(Posted):
    """One artifact's part of a posted result."""

    name: Words
    sha256: Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{64})?$")]
    skipped: Words = ""
    samples_ms: list[Milliseconds] = Field(max_length=MOST_SAMPLES)  # each the mean of ``runs_per_sample`` runs
    runs_per_sample: int = Field(default=1, ge=1, le=1_000_000)
    rounds: list[Annotated[int, Field(ge=0)]] = Field(max_length=MOST_SAMPLES)
    load_ms: Milliseconds | None = None
    first_ms: Milliseconds | None = None
    end_to_end_ms: dict[Literal["decode", "resize", "model", "total"], list[Milliseconds]] = Field(default_factory=dict)
    end_to_end_skipped: Words = ""

    @model_validator(mode="after")
    def _pairs(self) -> Row:
        if len(self.samples_ms) != len(self.rounds) or sorted(self.rounds) != self.rounds:
            raise ValueError("samples and rounds do not belong together")
        if any(len(values) > MOST_SAMPLES for values in self.end_to_end_ms.values()):
            raise ValueError("too many end-to-end samples")
        return self


class Answer(Posted):
    """The whole result of a job."""

    rows: list[Row] = Field(max_length=64)
    threads: int = Field(ge=1, le=4096)
    version: Words
    timer_resolution_ms: Milliseconds  # of the clock that measured
    hidden_ms: Milliseconds  # how long the page was in the background while it measured
    seconds: float = Field(ge=0, le=1e6)


def read(kind: type[Posted], body: bytes) -> Any:
    """A posted body as ``kind``; Refused when it is anything else."""
    try:
        return kind.model_validate_json(body)
    except (ValidationError, ValueError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": str(error)}
        where = ".".join(str(part) for part in first["loc"]) or "body"
        raise Refused(400, f"the posted {kind.__name__.lower()} is not valid: {where}: {first['msg']}") from error


def outputs(body: bytes, count: int, columns: int | None) -> NDArray[np.float32]:
    """Posted little-endian float32 as (count, columns); columns None: as many as the bytes say.  Refused otherwise."""
    values = np.frombuffer(body, "<f4") if len(body) % 4 == 0 else np.empty(0, np.float32)
    width = columns or (len(values) // count if count else 0)
    if not width or width > MOST_FEATURES or len(values) != count * width:
        raise Refused(400, f"{len(body)} bytes are not {count} rows of {columns or 'equally many'} float32")
    if not np.isfinite(values).all():
        raise Refused(400, "the outputs are not finite")
    return values.reshape(count, width).astype(np.float32)


def printable(values: Mapping[str, Any]) -> dict[str, Any]:
    """Without control characters in any text: these words reach a terminal and a report."""
    return {
        key: "".join(c for c in value if c.isprintable()) if isinstance(value, str) else value
        for key, value in values.items()
    }
