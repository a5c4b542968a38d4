"""Networks that softedge did not train: any timm classifier or backbone read from a weights file, and kept in a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from softedge import backbones
from softedge.backbones import Backbone, Classifier
from softedge.errors import UserError, whole
from softedge.export.deployed import Deployed
from softedge.export.given_network import network, rebuilt
from softedge.files import read_text
from softedge.progress import plural, say
from softedge.records import LABELLED, InputSpec, Output
from softedge.run import write_bytes
from softedge.weights import starting
from softedge.weights.channel_order import TURNED, red_first
from softedge.weights.class_names import class_names, refuse_other_count
from softedge.weights.files import description, serialized
from softedge.weights.preprocessing import Preprocessing, beside, by_name, of_timm, warn_of_blue_first

GREY = "photos become 0.299 R + 0.587 G + 0.114 B, unrounded, in the first convolution"
KIND = "network"  # of a file written by ``save``, beside "classifier" and "backbone"


@dataclass(frozen=True)
class GivenPreprocessing:
    """What the user says about the weights' preprocessing; None: what the file, ``config.json`` or timm says.

    size: input height = width, pixels.  mean, std: per channel, of x / 255.  crop: side of the crop / shorter side.
    bgr: whether the weights take blue, green, red; mean and std are then in that order, too.
    """

    size: int | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    interpolation: Literal["bilinear", "bicubic"] | None = None
    crop: float | None = None
    bgr: bool = False

    def applied(self, spec: InputSpec) -> InputSpec:
        """``spec`` with what the user says instead, red first."""
        mean, std = (each[::-1] if self.bgr and each else each for each in (self.mean, self.std))
        size = self.size or spec.size
        share = self.crop or spec.size / spec.resize
        resize = spec.resize if size == spec.size and not self.crop else round(size / share)
        return replace(
            spec,
            size=size,
            resize=resize,
            mean=mean or spec.mean,
            std=std or spec.std,
            interpolation=self.interpolation or spec.interpolation,
        )

    def options(self) -> list[str]:
        """What the user says of normalisation and interpolation: ``--mean`` and so on."""
        return [f"--{key}" for key in ("mean", "std", "interpolation") if getattr(self, key) is not None]


AS_KNOWN = GivenPreprocessing()


def preprocessing(
    size: int | None,
    mean: str | None,
    std: str | None,
    interpolation: str | None,
    crop: float | None,
    bgr: bool = False,
) -> GivenPreprocessing:
    """From what is typed, ``--mean 0.5,0.5,0.5``; UserError for anything else."""
    size = None if size is None else whole("--size", size, why=": the input's height and width in pixels, such as 224")
    if interpolation not in (None, "bilinear", "bicubic"):
        raise UserError(f"--interpolation is bilinear or bicubic; found '{interpolation}'")
    if crop is not None and not 0 < crop <= 1:
        raise UserError(f"--crop is {crop:g}; give the side of the centre crop over the shorter side, such as 0.875")
    channels = _channels("--mean", mean), _channels("--std", std)
    return GivenPreprocessing(size, *channels, interpolation, crop, bgr)  # type: ignore[arg-type]


def _channels(option: str, text: str | None) -> tuple[float, float, float] | None:
    if text is None:
        return None
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) not in (1, 3):
        raise UserError(
            f"{option} is '{text}'; give three numbers between 0 and 1, such as 0.5,0.5,0.5, or one for all channels"
        )
    low = 0.0 if option == "--mean" else 1e-3
    if not all(low <= value <= 1 for value in values):
        blue = len(values) == 3 and 90 < values[0] < values[1] < values[2] < 140  # 103.9,116.8,123.7
        more = "; blue comes first, as in Caffe: give --bgr" if blue else ""
        raise UserError(f"{option} is of x / 255, between 0 and 1; found '{text}' (divide by 255{more})")
    first, second, third = values * (3 // len(values))
    return first, second, third


def read(
    weights: Path,
    backbone: str | None = None,
    labels: str | Path | Sequence[str] | None = None,
    size: int | None = None,
    output: Output = "probabilities",
    preprocessing: GivenPreprocessing = AS_KNOWN,
    head: str | None = None,
) -> tuple[Deployed, str]:
    """The network in a weights file as it will be deployed, and the name of its architecture.

    backbone: timm's name, with the tag of the weights (``mobilenetv3_small_050.lamb_in1k``) where they have timm's
    preprocessing of that tag.
    output: "scores" for a classifier that was trained with sigmoids, "features" to leave it off.
    head: what lies between the layers of a classifier of several, "relu"; see ``weights.layered``.
    """
    if size is not None:
        preprocessing = replace(preprocessing, size=size)
    state = backbones.read_state(weights)
    _all_finite(state, weights)
    if head is not None and output == "features":
        raise UserError("features have no classifier; leave out --head or --output features")
    if "spec" in description(weights):
        if preprocessing.bgr:
            raise UserError(f"{weights} is softedge's own, which takes red first; leave out --bgr")
    elif backbone is None and weights.suffix != ".safetensors":
        raise UserError(f"{weights} was not written by softedge; say which network it is of with --backbone")
    if backbone is None:
        about = backbones.describe(weights)  # a UserError where softedge did not write the file
        spec = _announced(InputSpec.from_dict(about["spec"]), f"from {weights}", preprocessing)
        model = backbones.load(weights) if about["kind"] == "backbone" else backbones.load_classifier(weights)
        name = about["backbone"]["name"]
        known = _labels(labels, len(about["labels"])) if labels is not None else tuple(about["labels"])
        if head is not None:
            raise UserError(f"{weights} is softedge's own, with one linear layer as its classifier; leave out --head")
        if output == "scores":
            raise UserError(f"{weights} was trained by softedge with a softmax over its classes, not with sigmoids")
        kind: Output = "features" if about["kind"] == "backbone" else output
        return Deployed(model, spec, known, kind), name
    starting.refuse_unknown(backbone)
    made = network(weights, state, backbone, output, head)
    usual, origin = _known(weights, backbone, preprocessing)
    spec = _announced(usual, origin, preprocessing)
    about = {"preprocessing_from": by_name(_source(origin, preprocessing), weights)}
    if made.grey and len({*spec.mean}) + len({*spec.std}) > 2:
        raise UserError(
            f"{weights} is for grey images, and mean and std have values for three channels; give one each, such as "
            "--mean 0.5 --std 0.5"
        )
    if preprocessing.bgr:
        _refuse_unknown_order(weights, usual, origin, preprocessing, made.grey)
        red_first(made.net, spec.size, str(weights))
        say(f"weights: {weights} takes blue first (--bgr): its first convolution is turned, and files take red first")
        about["channel_order"] = TURNED
    else:
        warn_of_blue_first(spec.mean, weights, "the weights take")
    if made.classes == 0:
        if labels is not None and output != "features":
            raise UserError(f"{weights} has no classifier, and --labels names its classes; leave one of the two out")
        if output == "scores":
            raise UserError(f"{weights} has no classifier, and --activation says what is behind one; leave it out")
        deployed = Deployed(made.net, spec, output="features")
    else:
        names = class_names(weights, backbone) if labels is None else None
        if names is not None:
            refuse_other_count(*names, weights, made.classes)
            say(f"weights: the names of {plural(made.classes, 'class', 'classes')}, from {names[1]}")
            labels, about["labels_from"] = names[0], names[1].name
        deployed = Deployed(made.net, spec, _labels(labels, made.classes), output)
    deployed.options, deployed.head = made.options, made.head
    about |= {"head": f"{made.head['activation']} between its linear layers, from --head"} if made.head else {}
    deployed.about = {**about, **({"grey": GREY} if made.grey else {})}
    return deployed, backbone


def save(path: Path, deployed: Deployed, name: str) -> None:
    """Write a network that ``read`` gave, so that the file alone rebuilds it (``load``), with ``deployed.about``."""
    given = {"labels": list(deployed.labels), "output": deployed.output, "about": deployed.about}
    if isinstance(deployed.model, Classifier | Backbone):
        backbones.save(path, deployed.model, deployed.spec, given=given)
        return
    built = {key: value for key in ("options", "head") if (value := getattr(deployed, key))}
    about = {"kind": KIND, "backbone": {"name": name, **built}, "spec": deployed.spec.to_dict(), "given": given}
    state = {key: value.detach().contiguous().clone() for key, value in deployed.model.state_dict().items()}
    write_bytes(path, serialized(state, about))


def load(path: Path) -> Deployed:
    """Rebuild a network written by ``save``."""
    about = backbones.describe(path)
    given, spec = about["given"], InputSpec.from_dict(about["spec"])
    options, head = (dict(about["backbone"].get(key, {})) for key in ("options", "head"))
    net: nn.Module
    if about["kind"] == "backbone":
        net = backbones.load(path)
    elif about["kind"] == "classifier":
        net = backbones.load_classifier(path)
    else:
        state = backbones.read_state(path)
        classes = len(given["labels"]) if given["output"] in LABELLED else 0
        net = rebuilt(about["backbone"]["name"], classes, options, head, state)
    deployed = Deployed(net, spec, tuple(given["labels"]), given["output"])
    deployed.about, deployed.options, deployed.head = dict(given["about"]), options, head
    return deployed


def _all_finite(state: Mapping[str, Tensor], weights: Path) -> None:
    broken = [key for key, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise UserError(
            f"{weights} has NaN or infinite values in {len(broken)} of {len(state)} tensors, the first is "
            f"'{broken[0]}': training has diverged; use an earlier checkpoint"
        )


def _refuse_unknown_order(weights: Path, usual: InputSpec, origin: str, asked: GivenPreprocessing, grey: bool) -> None:
    """UserError where ``--bgr`` has no meaning, or nobody says in which order mean and std are."""
    if grey:
        raise UserError(f"{weights} is for grey images; leave out --bgr")
    for key in ("mean", "std"):
        if getattr(asked, key) is None and len({*getattr(usual, key)}) > 1:
            raise UserError(
                f"--bgr: the {key} ({origin}) has a value for each channel, and it is not known whether blue is first "
                "there; give --mean and --std, blue first"
            )


def _known(weights: Path, name: str, asked: GivenPreprocessing) -> tuple[InputSpec, str]:
    """What the weights were trained with, and who says so: softedge in the file, ``config.json`` beside it, the tag in
    ``name``, else an assumption."""
    if "spec" in description(weights):
        return InputSpec.from_dict(backbones.describe(weights)["spec"]), f"from {weights}"
    known = None
    if None in (asked.size, asked.mean, asked.std, asked.interpolation, asked.crop):
        known = beside(weights, name, "--mean and --std")
    if known is None:
        assumed = f"assumed: {weights.name} does not say, timm's default for {name}"
        if asked.mean is None or asked.std is None:
            assumed += "; give --mean and --std if the weights were trained otherwise"
        known = of_timm(name, "" if "." in name else assumed)
    if known is None:  # a network that another package has registered
        raise UserError(f"timm has no preprocessing of {name}; write mean and std into config.json beside {weights}")
    resize = max(known.size, round(known.size / known.crop))
    return InputSpec(known.size, resize, known.mean, known.std, known.interpolation), known.origin


def _announced(spec: InputSpec, origin: str, asked: GivenPreprocessing) -> InputSpec:
    """``spec`` with what the user says instead; a line says which preprocessing it is, and where it comes from."""
    spec, origin = asked.applied(spec), _source(origin, asked)
    crop = spec.size / spec.resize
    say(f"weights: {Preprocessing(spec.mean, spec.std, spec.interpolation, crop, spec.size, origin)}")
    return spec


def _source(origin: str, asked: GivenPreprocessing) -> str:
    """Who says how images are prepared, the user first."""
    if not (options := asked.options()):
        return origin
    return f"from {', '.join(options)}" + ("" if len(options) == 3 else f"; else {origin}")


def _labels(labels: str | Path | Sequence[str] | None, classes: int) -> tuple[str, ...]:
    if labels is None:
        return tuple(str(index) for index in range(classes))
    where = "the list of labels"
    if isinstance(labels, str | Path):
        where = str(labels)
        try:
            text = read_text(labels)  # editors on Windows put a byte order mark first
            labels = [line.strip() for line in text.splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{where} cannot be read as labels, one on each line ({error})") from error
    if len(labels) != classes:
        raise UserError(
            f"{where} has {plural(len(labels), 'label')}, the classifier {plural(classes, 'class', 'classes')}"
        )
    return tuple(labels)
