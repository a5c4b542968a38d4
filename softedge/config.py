"""Recipes: frozen, typed, every default visible, unknown keys refused with a suggestion.

A recipe is a TOML file. ``load("light-moco", overrides=["finetune.epochs=20"])`` resolves it, ``to_toml`` writes it.
``[ssl]`` belongs to the method that it names, and a plug-in may bring a section of its own (``registry.SECTIONS``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, ConfigDict, Field, SerializeAsAny, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from softedge import registry
from softedge.errors import UserError
from softedge.recipes import errors as recipe_errors
from softedge.recipes import files as recipe_files
from softedge.recipes import methods
from softedge.recipes.files import available as available
from softedge.recipes.files import parse_override as parse_override
from softedge.recipes.section import Fraction, Fractions, Positive, PositiveNumbers, Range, Section, Widths
from softedge.recipes.supervised import Distill as Distill
from softedge.recipes.supervised import Finetune as Finetune

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Channels = tuple[float, float, float]
_Deviation = Annotated[float, Field(gt=0)]
Deviations = tuple[_Deviation, _Deviation, _Deviation]


class Data(Section):
    """Which images, at which size, and how they are split."""

    source: str = "digits"  # a known name or a folder
    size: int = Field(default=224, gt=0, le=4096)  # height = width of the network's input, pixels
    resize: int = Field(default=0, ge=0)  # shorter side before the centre crop; 0: size / crop of the weights (0.875)
    # Preprocessing belongs to the starting weights. Random ones have none: "weights" is then bilinear and ImageNet's
    # mean and std (per channel, of x / 255), "auto" measures them on the pretraining images.
    interpolation: Literal["weights", "bilinear", "bicubic"] = "weights"
    mean: Literal["weights", "auto"] | Channels = "weights"
    std: Literal["weights", "auto"] | Deviations = "weights"
    test_fraction: float = Field(default=0.2, gt=0.0, lt=1.0)  # held out by content hash when there is no test split
    # For a network that was trained elsewhere: its classes in their order (() reads them from the data), and to hold
    # out unlabelled images too, since agreement with fp32 needs no labels; "none" where there are few images.
    classes: tuple[str, ...] = ()
    hold_out: Literal["labelled", "all", "none"] = "labelled"
    workers: int = Field(default=-1, ge=-1)  # loader processes; -1: chosen from the cores; 0: in this process


class Backbone(Section):
    """A timm network without its classifier."""

    name: str = "mobilenetv3_large_100"
    stem_stride: Literal[1, 2] = 2  # 1 for images of 32 pixels or so
    # "random"; "auto": the best there are (an installed package, else timm's hub, else random); "package"; "imagenet"
    # (timm's, from the hub); or a file (.safetensors, .pth)
    weights: str = "random"


class Augment(Section):
    """The views of an image; the defaults are MoCo-v2's (Chen et al. 2020, arXiv 2003.04297)."""

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
    blur_sigma: Range = (0.1, 2.0)  # pixels at 224; scaled with the image size when blur_scales is set
    blur_scales: bool = False


class Pretraining(Section):
    """What every method needs of ``[ssl]``; each has a class of its own, ``Settings``, with its name and the rest."""

    method: str
    epochs: int = Field(default=200, ge=0)  # 0: the starting weights are kept as they are
    # Of starting weights and those trained on from them: the trained where clearly better on held-out training images
    # (a linear layer on the features, 95 % interval of the difference), else the start; or always the trained
    keep: Literal["better", "trained"] = "better"
    batch: Positive = 512  # global: over all GPUs and accumulation steps
    knn_every: int = Field(default=10, ge=0)  # epochs between k-NN measurements during training; 0: never
    checkpoint_every: Positive = 1  # epochs between checkpoints
    log: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ()  # besides metrics.jsonl, which is always written

    # The projector behind the backbone: widths of its layers, the last one is the embedding.
    projector: Widths = (2048, 128)
    projector_norm: bool = (
        False  # BatchNorm between the layers (the papers have none; short runs on small data need it)
    )

    def files(self) -> tuple[str, ...]:
        """Files whose content the training depends on."""
        return ()

    def queue_length(self) -> int:
        """Length of the queue of earlier keys that are negatives; 0 for a method without one."""
        return 0

    def keys_per_step(self) -> int:
        """Keys that one update puts into that queue."""
        return 0

    def key_groups(self, world: int) -> int:
        """Groups with BatchNorm statistics of their own into which a rank's micro-batch of keys is cut."""
        return 1


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

    weight_decays: PositiveNumbers = (1e-5, 1e-4, 1e-3, 1e-2)  # the sweep; chosen on a part of the training set
    labels: float = Field(default=1.0, gt=0.0, le=1.0)  # fraction of the training labels to use, stratified
    few_labels: int = Field(default=10, ge=0)  # labels per class of the few-label comparison; 0: leave it out
    random_baseline: bool = True  # the same probe on random weights beside it


class Labels(Section):
    """Was pretraining worth it? Accuracy by number of labels, with and without it."""

    fractions: Fractions = (0.01, 0.1, 1.0)
    seeds: Annotated[int, Field(ge=2)] = 3
    given: tuple[str, ...] = ()  # further initial weights: "imagenet" or files
    methods: Annotated[tuple[Literal["probe", "finetune"], ...], Field(min_length=1)] = ("probe", "finetune")
    int8: str = registry.DEFAULT_FORMATS[0]  # measure the exported int8 file of every classifier too; "": do not


class Linear(Section):
    """The linear protocol of the papers, with augmentation, on the frozen network (``protocols.py``)."""

    protocol: Literal["simsiam", "ang-2022"] = "simsiam"
    epochs: int = Field(default=0, ge=0)  # 0: the protocol's (90; 100)
    batch: int = Field(default=0, ge=0)  # 0: the protocol's (4096; 512), at most the training set


class Plan(Section):
    """What ``deploy`` does with the time that there is; ``stages/plan.py`` turns minutes into epochs and pixels."""

    minutes: float = Field(default=15.0, gt=0.0)  # of all stages together
    finetune: bool = True  # where there are labels
    distill: bool = True  # where at least half of the training images have no label
    scratch: bool = False  # the labels alone beside it: takes as long as pretraining and fine-tuning together
    baselines: bool = True  # cheap classifiers beside it, in seconds
    # that fine-tuning and distillation compute with where layers are large; 0: one core is left to whatever else runs
    threads: int = Field(default=0, ge=0)


class Export(Section):
    # which classifier is deployed; "best": of those of the run, the best on validation images
    # ("given": a network that softedge export-file was given)
    source: Literal["best", "probe", "scratch", "finetune", "distill", "given"] = "best"
    targets: tuple[str, ...] = registry.DEFAULT_FORMATS
    precisions: tuple[str, ...] = ("fp32", "fp16", "int8")  # and others that a format has: Core ML w8a8
    batch: Literal["dynamic", "one"] = "dynamic"
    # "scores": a sigmoid for each label, of a network from elsewhere (softedge export-file --activation sigmoid)
    output: Literal["probabilities", "scores", "features"] = "probabilities"
    calibration_images: Positive = 300
    safe: bool = False  # int8 weights of 7 bits: no saturation on x86 without VNNI, at some cost everywhere
    # int8 files in integers alone as well, image and answer too, for processors that compute nothing else (ONNX)
    strict: bool = False
    float_prefix: str = ""  # layer where the integers of an int8 file begin (ONNX); "": chosen by speed and closeness
    golden_images: Positive = 8


class Quantize(Section):
    """The search for a better int8 file where the exported one may not pass the gates of ``check``."""

    search: bool = True
    tune_steps: Positive = 300  # of fine-tuning, nearly its last resort
    tune_minutes: float = Field(default=5.0, gt=0.0)  # at most, on this machine


class Check(Section):
    """The gates of an exported file, against PyTorch on real test images."""

    max_drop: Fraction = 0.01  # of top-1 accuracy
    min_agreement: Fraction = 0.98  # same top-1 as PyTorch fp32
    min_accuracy: Fraction = 0.0  # top-1 on the test images that every file needs; 0: no limit
    # Precisions whose refused files are a caution where another file of the format passed: nobody asked for them.
    optional: tuple[str, ...] = ()
    images: Positive = 1000  # test images at most
    max_size: int = Field(default=0, ge=0)  # bytes of an int8 file; 0: no limit
    max_p90: float = Field(default=0.0, ge=0.0)  # ms of an int8 file wherever it was timed; 0: no limit
    emulate: tuple[Literal["avx2", "arm64"], ...] = ()  # run int8 files under qemu and count changed answers
    against: str = ""  # an earlier run to compare with


class Bench(Section):
    devices: tuple[str, ...] = ("local",)
    preset: Literal["quick", "standard", "submission"] = "quick"
    threads: Positive = 1


def _plugin_sections() -> dict[str, type[Section]]:
    return {name: registry.lookup(registry.SECTIONS, name, "section") for name in registry.SECTIONS}


Kind = TypeVar("Kind", bound=Section)


class Recipe(Section):
    """All sections. Those of plug-ins stand beside the fields: ``recipe.plugin(Transfer)``."""

    model_config = ConfigDict(extra="allow")  # only for plug-ins: ``_plugins`` refuses everything else

    name: str = "unnamed"
    seed: int = Field(default=0, ge=0, lt=1 << 63)
    data: Data = Data()
    backbone: Backbone = Backbone()
    augment: Augment = Augment()
    # Resolved on use: the defaults are those of a method, and methods import torch.
    ssl: Annotated[SerializeAsAny[Pretraining], BeforeValidator(methods.method_settings)] = Field(
        default_factory=lambda: methods.method_settings({})
    )
    optim: Optim = Optim()
    knn: Knn = Knn()
    probe: Probe = Probe()
    finetune: Finetune = Finetune()
    distill: Distill = Distill()
    labels: Labels = Labels()
    linear: Linear = Linear()
    plan: Plan = Plan()
    export: Export = Export()
    quantize: Quantize = Quantize()
    check: Check = Check()
    bench: Bench = Bench()

    @model_validator(mode="before")
    @classmethod
    def _plugins(cls, values: Any) -> Any:
        """Validate the sections of plug-ins, with their defaults where the recipe says nothing."""
        if not isinstance(values, Mapping):
            return values
        plugins, made, wrong = _plugin_sections(), dict(values), list[InitErrorDetails]()
        for name in values.keys() - cls.model_fields.keys() - plugins.keys():
            wrong.append({"type": "extra_forbidden", "loc": (name,), "input": values[name]})
        for name, kind in plugins.items():
            try:
                made[name] = kind.model_validate(values.get(name, {}))
            except ValidationError as error:
                wrong += [_within(name, details) for details in error.errors()]
        if wrong:
            raise ValidationError.from_exception_data(cls.__name__, wrong)
        return made

    def plugin(self, kind: type[Kind]) -> Kind:
        """The section of a plug-in by its class."""
        return next(section for section in (self.model_extra or {}).values() if isinstance(section, kind))

    def section(self, *names: str) -> dict[str, Any]:
        """The named sections as plain values, for ``run.perform(recipe=...)``."""
        values = self.model_dump(mode="json")
        return {name: values[name] for name in names}


def _within(section: str, error: Any) -> InitErrorDetails:
    """An error of a section as one of the recipe."""
    kind = PydanticCustomError(error["type"], error["msg"])  # pydantic knows its own kinds by name, not a section's
    return {"type": kind, "loc": (section, *error["loc"]), "input": error["input"]}


def load(name_or_path: str, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe and what it is based on, and apply ``--set`` overrides ("finetune.epochs=20").

    Every mistake is one UserError line that names the file it is in.
    """
    return _read(recipe_files.layers(name_or_path), overrides)[0]


def build(values: Mapping[str, Any], overrides: Iterable[str] = (), source: str = "the recipe") -> Recipe:
    """Validate plain values (already parsed TOML) with overrides applied."""
    return _resolve([recipe_files.RecipeFile(source, values)], overrides)[0]


def to_toml(recipe: Recipe) -> str:
    """The resolved recipe, every default spelled out; ``load`` reads it back to an equal recipe."""
    import tomli_w

    return tomli_w.dumps(recipe.model_dump(mode="json"))


def shown(name_or_path: str, overrides: Iterable[str] = ()) -> str:
    """``to_toml`` of a recipe with a comment behind every value that is not a default: who sets it."""
    layers = recipe_files.layers(name_or_path)
    recipe, merged = _read(layers, overrides)
    return recipe_files.annotated(recipe.model_dump(mode="json"), merged.origins, own=layers[-1].source)


def _read(layers: list[recipe_files.RecipeFile], overrides: Iterable[str]) -> tuple[Recipe, recipe_files.Merged]:
    """Files that are based on each other; where the last one has no name, that of the file stands for it."""
    recipe, merged = _resolve(layers, overrides)
    named = recipe if "name" in merged.values else recipe.model_copy(update={"name": Path(layers[-1].source).stem})
    return named, merged


def _resolve(layers: list[recipe_files.RecipeFile], overrides: Iterable[str]) -> tuple[Recipe, recipe_files.Merged]:
    given = recipe_files.layered(overrides)
    merged = recipe_files.Merged()
    for layer in layers:
        methods.leave_to_others(merged, [layer])
        merged.add(layer)
    methods.leave_to_others(merged, given)
    for layer in given:
        merged.add(layer)
    recipe_files.rename(merged.values)
    try:
        return Recipe.model_validate(merged.values), merged
    except ValidationError as error:
        raise UserError(recipe_errors.explain(error, merged, _sections(merged.values), Recipe)) from None


def _sections(values: Mapping[str, Any]) -> dict[str, Any]:
    """Name -> class, with the method that ``values`` name."""
    ssl = values.get("ssl")
    method = ssl.get("method", methods.DEFAULT) if isinstance(ssl, Mapping) else methods.DEFAULT
    sections: dict[str, Any] = {name: field.annotation for name, field in Recipe.model_fields.items()}
    sections |= _plugin_sections()
    sections["ssl"] = methods.settings_of(method) if methods.known(method) else Pretraining
    return sections
