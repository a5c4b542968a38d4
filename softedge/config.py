"""Recipes: frozen, typed, every default visible, unknown keys refused with a suggestion.

A recipe is a TOML file. ``load("light-moco", overrides=["ssl.epochs=50"])`` resolves it; ``to_toml`` spells it out.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, Field, ValidationError

from softedge.detection.settings import Transfer
from softedge.errors import UserError, did_you_mean
from softedge.section import Fraction, Positive, Section
from softedge.ssl_settings import BYOL as BYOL
from softedge.ssl_settings import MSF as MSF
from softedge.ssl_settings import PCL as PCL
from softedge.ssl_settings import SEED as SEED
from softedge.ssl_settings import SSL, LightMoCo
from softedge.ssl_settings import MoCoV2 as MoCoV2
from softedge.ssl_settings import Pretraining as Pretraining
from softedge.ssl_settings import SimCLR as SimCLR
from softedge.ssl_settings import SimCo as SimCo
from softedge.ssl_settings import SimMoCo as SimMoCo
from softedge.ssl_settings import SimSiam as SimSiam
from softedge.ssl_settings import Supervised as Supervised

CONFIGS = Path(__file__).parent / "configs"

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Channels = tuple[float, float, float]


class Data(Section):
    """Which images, at which size, and how they are split."""

    source: str = "digits"  # a known name or a folder
    size: Positive = 224  # height = width of the network's input, pixels
    resize: int = Field(default=0, ge=0)  # shorter side before the centre crop; 0: size / 0.875, the ImageNet habit
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    mean: Literal["auto"] | Channels = IMAGENET_MEAN  # per channel, of x / 255; "auto" measures the pretraining images
    std: Literal["auto"] | Channels = IMAGENET_STD
    test_fraction: float = Field(default=0.2, gt=0.0, lt=1.0)  # held out by content hash when there is no test split
    workers: int = Field(default=-1, ge=-1)  # loader processes; -1: chosen from the cores; 0: in this process


class Backbone(Section):
    """A timm network without its classifier."""

    name: str = "mobilenetv3_large_100"
    stem_stride: Literal[1, 2] = 2  # 1 for images of 32 pixels or so
    weights: str = "random"  # "random", "imagenet" (timm downloads them) or a file (.safetensors, .pth state dict)


class Augment(Section):
    """Two views of an image; the defaults are MoCo-v2's (Chen et al. 2020, arXiv 2003.04297)."""

    min_area: Fraction = 0.2  # smallest area of the random resized crop
    rotate: float = Field(default=0.0, ge=0.0, le=180.0)  # degrees either way, after the crop; not in the papers
    translate: Fraction = 0.0  # of the side, either way, after the crop; what comes in from outside is black
    flip: Fraction = 0.5
    jitter: Fraction = 0.8  # probability of the colour jitter
    brightness: float = Field(default=0.4, ge=0.0)
    contrast: float = Field(default=0.4, ge=0.0)
    saturation: float = Field(default=0.4, ge=0.0)
    hue: float = Field(default=0.1, ge=0.0, le=0.5)
    grey: Fraction = 0.2
    blur: Fraction = 0.5
    blur_sigma: tuple[float, float] = (0.1, 2.0)  # pixels at 224; scaled with the image size when blur_scales is set
    blur_scales: bool = False


class Optim(Section):
    optimizer: Literal["sgd", "adamw", "lars"] = "sgd"
    lr: float = Field(default=0.2, gt=0.0)  # at the recipe's batch, not per 256
    momentum: Fraction = 0.9
    weight_decay: float = Field(default=1e-5, ge=0.0)
    warmup_epochs: float = Field(default=5.0, ge=0.0)
    clip_norm: float = Field(default=0.0, ge=0.0)  # 0: no clipping
    accumulate: Positive = 1  # micro-batches per update
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: bool | Literal["graphs"] = False  # torch.compile the networks ("graphs": CUDA graphs too); for GPUs


class Knn(Section):
    """Weighted k-NN (Wu et al. 2018): votes weighted by exp(similarity / temperature)."""

    k: Positive = 20
    temperature: float = Field(default=0.07, gt=0.0)


class Probe(Section):
    """A linear classifier on frozen features."""

    weight_decays: tuple[float, ...] = (1e-5, 1e-4, 1e-3, 1e-2)  # the sweep; chosen on a part of the training set
    labels: float = Field(default=1.0, gt=0.0, le=1.0)  # fraction of the training labels to use, stratified
    few_labels: int = Field(default=10, ge=0)  # labels per class of the few-label comparison; 0: leave it out
    random_baseline: bool = True  # the same probe on random weights beside it


class Finetune(Section):
    """Training the whole network on the labels (AdamW, cosine), from the SSL backbone, ImageNet weights or scratch."""

    init: str = "ssl"  # "ssl", "random", "imagenet" (timm downloads them) or a weights file
    epochs: Positive = 50
    min_steps: Positive = 200  # a handful of labels gets this many steps nevertheless
    max_steps: int = Field(default=0, ge=0)  # 0: no limit
    batch: Positive = 64
    lr: float = Field(default=1e-3, gt=0.0)  # of the head
    layer_decay: float = Field(default=0.8, gt=0.0, le=1.0)  # rate of a layer / rate of the next; scratch has 1
    weight_decay: float = Field(default=0.05, ge=0.0)
    warmup: Fraction = 0.1  # fraction of the steps
    label_smoothing: Fraction = 0.1
    mixup: float = Field(default=0.0, ge=0.0)  # alpha of the Beta distribution; 0: none
    ema: float = Field(default=0.99, ge=0.0, lt=1.0)  # decay of the averaged weights that are kept; 0: no averaging
    min_area: float = Field(default=0.35, gt=0.0, le=1.0)  # of the random resized crop
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # as optim.precision: auto is bf16 on GPUs, fp32 on CPUs
    labels: float = Field(default=1.0, gt=0.0, le=1.0)  # fraction of the training labels, stratified


class Labels(Section):
    """Was pretraining worth it? Accuracy by number of labels, with and without it."""

    fractions: tuple[float, ...] = (0.01, 0.1, 1.0)
    seeds: Annotated[int, Field(ge=2)] = 3
    given: tuple[str, ...] = ()  # further initial weights: "imagenet" or files
    methods: tuple[Literal["probe", "finetune"], ...] = ("probe", "finetune")
    int8: Literal["", "onnx", "openvino"] = "onnx"  # measure the exported int8 file of every classifier too; "": do not


class Linear(Section):
    """The linear protocol of the papers, with augmentation, on the frozen network (``protocols.py``)."""

    protocol: Literal["simsiam", "ang-2022"] = "simsiam"
    epochs: int = Field(default=0, ge=0)  # 0: the protocol's (90; 100)
    batch: int = Field(default=0, ge=0)  # 0: the protocol's (4096; 512), at most the training set


class Export(Section):
    source: Literal["probe", "finetune"] = "probe"  # which classifier is deployed
    targets: tuple[str, ...] = ("onnx", "openvino", "coreml")
    precisions: tuple[Literal["fp32", "fp16", "int8", "w8a8"], ...] = ("fp32", "fp16", "int8")  # w8a8: Core ML only
    batch: Literal["dynamic", "one"] = "dynamic"
    output: Literal["probabilities", "features"] = "probabilities"
    calibration_images: Positive = 300
    safe: bool = False  # int8 weights of 7 bits: no saturation on x86 without VNNI, at some cost everywhere
    golden_images: Positive = 8


class Check(Section):
    """The gates of an exported file, against PyTorch on real test images."""

    max_drop: Fraction = 0.01  # of top-1 accuracy
    min_agreement: Fraction = 0.98  # same top-1 as PyTorch fp32
    images: Positive = 1000  # test images at most
    max_size: int = Field(default=0, ge=0)  # bytes of an int8 file; 0: no limit
    max_p90: float = Field(default=0.0, ge=0.0)  # ms of an int8 file wherever it was timed; 0: no limit
    doctor: bool = True  # climb to better quantization when the int8 ONNX file is refused
    tune_steps: Positive = 300  # of fine-tuning, nearly its last resort
    tune_minutes: float = Field(default=5.0, gt=0.0)  # at most, on this machine
    emulate: tuple[Literal["avx2", "arm64"], ...] = ()  # run int8 files under qemu and count changed answers
    against: str = ""  # an earlier run to compare with


class Bench(Section):
    devices: tuple[str, ...] = ("local",)
    preset: Literal["quick", "standard", "submission"] = "quick"
    threads: Positive = 1


class Recipe(Section):
    name: str = "unnamed"
    seed: int = 0
    data: Data = Data()
    backbone: Backbone = Backbone()
    augment: Augment = Augment()
    ssl: SSL = LightMoCo()
    optim: Optim = Optim()
    knn: Knn = Knn()
    probe: Probe = Probe()
    finetune: Finetune = Finetune()
    labels: Labels = Labels()
    linear: Linear = Linear()
    transfer: Transfer = Transfer()
    export: Export = Export()
    check: Check = Check()
    bench: Bench = Bench()

    def section(self, *names: str) -> dict[str, Any]:
        """The named sections as plain values, for ``run.perform(recipe=...)``."""
        values = self.model_dump(mode="json")
        return {name: values[name] for name in names}


def available() -> dict[str, Path]:
    """Recipes that come with the package: name -> file."""
    return {path.stem: path for path in sorted(CONFIGS.glob("*.toml"))}


def find(name_or_path: str) -> Path:
    """The file of a recipe given by name or path; UserError with a suggestion."""
    known = available()
    if name_or_path in known:
        return known[name_or_path]
    path = Path(name_or_path).expanduser()
    if path.suffix == ".toml" or path.exists():
        if path.is_file():
            return path
        raise UserError(f"recipe {name_or_path} is not a file; recipes that come with softedge: {', '.join(known)}")
    raise UserError(f"unknown recipe '{name_or_path}'{did_you_mean(name_or_path, tuple(known))}")


def load(name_or_path: str, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe and apply ``--set`` overrides ("ssl.epochs=50"); every mistake is one UserError line."""
    path = find(name_or_path)
    try:
        values = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise UserError(f"recipe {path} cannot be read: {error}") from error
    values.setdefault("name", path.stem)
    return build(values, overrides, source=path.name)


def build(values: Mapping[str, Any], overrides: Iterable[str] = (), source: str = "the recipe") -> Recipe:
    """Validate plain values (already parsed TOML) with overrides applied."""
    overrides = tuple(overrides)
    merged: dict[str, Any] = _deep_copy(values)
    for override in overrides:
        key, value = parse_override(override)
        at = merged
        *parents, last = key.split(".")
        for parent in parents:
            at = at.setdefault(parent, {})
            if not isinstance(at, dict):
                raise UserError(f"--set {override}: '{parent}' is a value, not a section")
        at[last] = value
    if isinstance(merged.get("ssl"), dict):
        merged["ssl"].setdefault("method", "light-moco")
        set_here = {parse_override(override)[0] for override in overrides}
        if "ssl.method" in set_here:
            _leave_to_other_methods(merged["ssl"], set_here)
    try:
        return Recipe.model_validate(merged)
    except ValidationError as error:
        raise UserError(_explain(error, merged, source)) from None


def parse_override(text: str) -> tuple[str, Any]:
    """Split ``a.b=value``; the value is read as TOML, or as a plain string where that fails."""
    key, sign, value = text.partition("=")
    key = key.strip()
    if not sign or not key:
        raise UserError(f"--set {text}: expected KEY=VALUE, for example --set ssl.epochs=50")
    try:
        return key, tomllib.loads(f"v = {value}")["v"]
    except tomllib.TOMLDecodeError:
        return key, value.strip()


def _leave_to_other_methods(section: dict[str, Any], set_here: set[str]) -> None:
    """After ``--set ssl.method=...``: drop what the recipe said for its own method and the new one does not know."""
    for model in get_args(get_args(SSL)[0]):
        if model.model_fields["method"].default == section["method"]:
            for key in [k for k in section if k not in model.model_fields and f"ssl.{k}" not in set_here]:
                del section[key]


def _deep_copy(value: Any) -> Any:
    return {k: _deep_copy(v) for k, v in value.items()} if isinstance(value, Mapping) else value


def _explain(error: ValidationError, values: Mapping[str, Any], source: str) -> str:
    first = error.errors()[0]
    place = [str(p) for p in first["loc"]]
    keys = _known_keys(values)
    # A union adds its tag to the place ("ssl", "light-moco", "queue"); a user never typed it.
    if len(place) > 1 and place[0] == "ssl" and place[1] in _methods():
        place.pop(1)
    dotted = ".".join(p for p in place if p not in ("literal['auto']",) and not p.startswith(("tuple[", "function-")))
    if first["type"] == "extra_forbidden":
        near = did_you_mean(dotted, keys) if any(k.split(".")[-1] for k in keys) else ""
        return f"unknown key '{dotted}' in {source}{near if 'did you mean' in near else '; see: softedge recipes show'}"
    if first["type"] == "union_tag_invalid":
        return f"unknown method '{first['ctx']['tag']}' in {source}{did_you_mean(first['ctx']['tag'], _methods())}"
    return f"{dotted} in {source}: {first['msg'].lower()}, found {first['input']!r}"


def _methods() -> tuple[str, ...]:
    members = get_args(get_args(SSL)[0])
    return tuple(m.model_fields["method"].default for m in members)


def _known_keys(values: Mapping[str, Any]) -> list[str]:
    keys: list[str] = []
    for name, info in Recipe.model_fields.items():
        keys.append(name)
        for model in _models(info.annotation):
            keys += [f"{name}.{k}" for k in model.model_fields]
    return sorted(set(keys))


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) is None:
        return []
    return [m for a in get_args(annotation) for m in _models(a)]


def to_toml(recipe: Recipe) -> str:
    """The resolved recipe, every default spelled out; ``load`` reads it back to an equal recipe."""
    import tomli_w

    return tomli_w.dumps(recipe.model_dump(mode="json"))
