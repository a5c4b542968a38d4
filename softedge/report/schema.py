"""report.json as types, for programs that read it: ``Report.model_validate_json(path.read_text())``.

schema.md says what each key means; a test holds the two together, and the reports of real and made-up runs to both.
What stages wrote in their own words (metrics, recipes, what a device reports about itself) is a free mapping.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Free = dict[str, Any]
Curve = list[tuple[float, float]]


class Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Pick(Entry):
    device: str
    status: Literal[
        "ship",
        "ship, not timed",
        "not better than cheap",
        "nothing passed",
        "not checked",
        "nothing exported",
        "not to be relied on",
    ]
    artifact: str
    answer: str
    reason: str


class Verdict(Entry):
    picks: list[Pick] = Field(min_length=1)
    cautions: list[str]
    why_first: str


class StageEntry(Entry):
    stage: str
    status: Literal["done", "not run", "unfinished", "damaged"]
    reason: str = ""
    started: str | None = None
    seconds: float | None = None
    summary: str
    failed: bool


class Device(Entry):
    address: str
    called: str
    short: str
    kind: Literal["a device", "this computer", "a browser on a computer", "elsewhere", "an emulator"]
    preset: str
    threads: int | None = None
    about: Free


class Ratio(Entry):
    ratio: float
    low: float | None
    high: float | None
    different: bool | None
    rounds: int | None


class Histogram(Entry):
    edges_ms: list[float]
    counts: list[int]


class Timing(Entry):
    p50_ms: float | None = None
    p90_ms: float | None = None
    p99_ms: float | None = None
    mean_ms: float | None = None
    min_ms: float | None = None
    n: int | None = None
    load_ms: float | None = None
    first_ms: float | None = None
    valid: bool
    why_not_valid: str = ""
    top1: float | None = Field(default=None, ge=0, le=1)
    n_images: int | None = None
    agreement_local: float | None = Field(default=None, ge=0, le=1)
    n_compared: int | None = None
    end_to_end_p90_ms: float | None = None
    end_to_end: Free = {}
    peak_memory_bytes: int | None = None
    runtime: str = ""
    accelerator: str = ""
    threads: int | None = None
    effective_precision: str = ""
    drift: Free = {}
    quality: Free = {}
    preset: str = ""
    session: str = ""
    sha256: str = ""
    measured: str
    measured_elsewhere: bool = False
    tool: str = ""
    caveat: str = ""
    conditions: dict[Literal["before", "after"], Free] = {}
    ratios: dict[str, Ratio] = {}
    histogram: Histogram | None = None


class FileRow(Entry):
    artifact: str
    target: str
    precision: str
    file: str = ""
    sha256: str | None = None
    size_bytes: int | None = None
    checkpoint_sha256: str = ""
    source: str = ""
    output: str = ""
    export_seconds: float | None = None
    top1: float | None = Field(default=None, ge=0, le=1)
    top1_fp32: float | None = Field(default=None, ge=0, le=1)
    drop: float | None = Field(default=None, ge=-1, le=1)
    agreement: float | None = Field(default=None, ge=0, le=1)
    max_abs_diff: float | None = None
    p99_abs_diff: float | None = None
    sqnr_db: float | None = None
    distance: float | None = None
    knn_overlap: float | None = None
    n: int | None = None
    size_ratio: float | None = None
    runtime: str = ""
    quantized_ops: dict[str, int] = {}
    gate: Literal["passed", "failed", "not run"]
    why: str = ""
    allowed: str = ""
    gate_floor: float | None = None
    gate_agreement: float | None = None
    calibration: Free = {}
    layers: list[Free] = []
    search: list[Free] = []
    selection: str = ""
    advice: str | Free | list[Any] = ""
    sure: bool | None = None
    superseded_by: str = ""
    set_aside: str = ""
    emulated: dict[str, Free] = {}
    notes: Free = {}
    not_run: dict[str, str]
    devices: dict[str, Timing]


class Performed(Entry):
    command: str
    started: str
    stages: list[str]


class Provenance(Entry):
    seed: int | None
    inputs: dict[str, str]
    environment: Free
    versions: dict[str, str]
    same_environment: bool
    performed: list[Performed]
    commands: list[str]


class Picture(Entry):
    group: Literal["drawn", "mistakes"]
    index: int
    name: str = ""
    truth: str
    answer: str
    probability: float | None = None
    right: bool


class Embedding(Entry):
    x: list[float]
    y: list[float]
    index: list[int]
    truth: list[int]
    answer: list[int]
    answered_by: str = "probe"
    classes: list[str]
    n: int
    of: int
    sha256: str


class Map(Entry):
    n: int
    of: int
    classes: list[str]
    side: int
    columns: int
    names: list[str]
    labels: list[int]
    tested: list[bool]
    x: list[float]
    y: list[float]
    suggested: dict[str, str]
    n_suggested: int


class NearPair(Entry):
    kind: str
    similarity: float
    name: str
    split: str
    label: str
    other_name: str
    other_split: str
    other_label: str


class NearCopies(Entry):
    counts: dict[str, int]
    pairs: list[NearPair]


class SetAside(Entry):
    split: Literal["pretrain", "train", "test"]
    stages: list[str] = Field(min_length=1)
    n: int
    of: int
    names: list[str]
    sha256: str


class Missing(Entry):
    what: str
    artifact: str = ""
    status: str
    why: str


class RunEntry(Entry):
    name: str
    folder: str = ""
    verdict: Verdict
    damaged: list[str] = []
    recipe: Free
    stages: list[StageEntry]
    data: Free
    pretrain: Free
    probe: Free
    files: list[FileRow]
    devices: dict[str, Device]
    check: Free
    examples: list[Free]
    finetune: Free
    distill: Free = {}
    scratch: Free = {}
    plan: Free = {}
    baselines: Free
    labels: Free
    label_issues: Free = {}
    linear: dict[str, Free]
    transfer: dict[str, Free]
    confusion: Free = {}
    gallery: list[Picture] = []
    embedding: Embedding | None = None
    map: Map | None = None
    near_copies: NearCopies | None = None
    set_aside: list[SetAside] = []
    not_run: list[Missing]
    provenance: Provenance
    pictures_missing: str = ""


class Change(Entry):
    group: Literal["recipe", "data", "features", "devices", "files"]
    what: str
    before: Any
    after: Any
    kind: Literal["text", "count", "percent", "size", "milliseconds"]
    change: float | None = None
    ratio: bool = False


class Report(Entry):
    schema_: Literal[1] = Field(alias="schema")
    softedge: str
    generated: str
    runs: list[RunEntry] = Field(min_length=1)
    changes: list[Change] = []
