"""Export weights that softedge did not train: any timm classifier or backbone from a file, without a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from softedge import backbones, registry
from softedge.data.images import UNLABELLED, FileImages
from softedge.errors import UserError, did_you_mean
from softedge.export import calibration, folding
from softedge.export.base import combinations
from softedge.export.deployed import Deployed
from softedge.records import InputSpec, Result
from softedge.run import Run, sha256
from softedge.stages import export as stage
from softedge.weights import layouts


def export_file(
    weights: str | Path,
    out: str | Path,
    images: str | Path,
    backbone: str | None = None,
    labels: str | Path | Sequence[str] | None = None,
    size: int | None = None,
    targets: Sequence[str] = registry.DEFAULT_FORMATS,
    precisions: Sequence[str] = ("fp32", "fp16", "int8"),
    output: str = "probabilities",
    batch: str = "dynamic",
    calibration_images: int = 300,
    golden_images: int = 8,
    seed: int = 0,
    force: bool = False,
) -> list[Result]:
    """Write ``out/export/<target>-<precision>`` from a weights file.

    weights: a softedge file (.safetensors), or a timm state dict (.safetensors, .pth) with its architecture's name in
    ``backbone``.  images: a folder of real images, to calibrate int8 and to compare every file with PyTorch on.
    labels: names, or a file with one on each line, in the order of the classifier; numbers when absent.
    size: input height = width; the architecture's own by default.  output: "probabilities", or "features" to leave the
    classifier off (the only choice for a backbone).
    Raises UserError for weights, labels or images that do not fit.
    """
    if output not in ("probabilities", "features") or batch not in ("dynamic", "one"):
        raise UserError(f"output is probabilities or features, batch dynamic or one; found '{output}' and '{batch}'")
    if size is not None and size < 1:
        raise UserError(f"--size is {size}; give the input's height and width in pixels, such as 224")
    weights, root = Path(weights), Path(images)
    digest = sha256(weights) if weights.is_file() else ""
    deployed, name = read(weights, backbone, labels, size, output)
    deployed.about = stage.origin(digest, name)
    readable(root, 1, seed)  # a mistake with the folder shows now, not in every format

    def source() -> stage.Source:
        beside = golden_images + stage.PARITY_IMAGES
        found = readable(root, calibration_images + beside, seed)
        # Of few images all calibrate, and are compared on as well; of many the comparison has its own.
        kept = len(found) - beside if len(found) >= calibration.FEW + beside else len(found)
        some = np.arange(min(kept, calibration_images))
        chosen = calibration.sample(found.subset(some), deployed.spec, calibration_images, seed, str(root))
        compared = found.subset(np.arange(len(found))[-beside:])
        return stage.prepare(deployed, weights, chosen, compared, golden_images, seed)

    asked = {
        "backbone": name,
        "size": deployed.spec.size,
        "output": deployed.output,
        "batch": batch,
        "calibration_images": calibration_images,
        "golden_images": golden_images,
        "labels": list(deployed.labels),
        "seed": seed,
    }
    run = Run(Path(out))
    try:
        run.root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out} cannot be made ({error.strerror}); choose another --out") from error
    with run.locked():
        return stage.export_formats(
            run,
            combinations(targets, precisions, batch),
            source,
            recipe={"export": asked},
            inputs={weights.name: digest},
            force=force,
        )


def read(
    weights: Path,
    backbone: str | None = None,
    labels: str | Path | Sequence[str] | None = None,
    size: int | None = None,
    output: str = "probabilities",
) -> tuple[Deployed, str]:
    """The network in a weights file as it will be deployed, and the name of its architecture."""
    state = backbones.read_state(weights)
    _all_finite(state, weights)
    if backbone is None:
        about = backbones.describe(weights)  # a UserError where softedge did not write the file
        spec = InputSpec.from_dict(about["spec"])
        model = backbones.load(weights) if about["kind"] == "backbone" else backbones.load_classifier(weights)
        name = about["backbone"]["name"]
        known = _labels(labels, len(about["labels"])) if labels is not None else tuple(about["labels"])
        kind = "features" if about["kind"] == "backbone" or output == "features" else "probabilities"
        return Deployed(model, _resized(spec, size), known, kind), name  # type: ignore[arg-type]
    net, classes = _timm(weights, state, backbone, output)
    spec = _resized(_spec(net), size)
    if classes == 0:
        if labels is not None and output != "features":
            raise UserError(f"{weights} has no classifier, and --labels names its classes; leave one of the two out")
        return Deployed(net, spec, output="features"), backbone
    return Deployed(net, spec, _labels(labels, classes), "probabilities"), backbone


def _all_finite(state: Mapping[str, Tensor], weights: Path) -> None:
    broken = [key for key, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise UserError(
            f"{weights} has NaN or infinite values in {len(broken)} of {len(state)} tensors, the first is "
            f"'{broken[0]}': training has diverged; use an earlier checkpoint"
        )


def _timm(weights: Path, state: Mapping[str, Tensor], name: str, output: str) -> tuple[nn.Module, int]:
    """The timm network with the weights loaded, and its number of classes (0: features)."""
    import timm

    if name not in timm.list_models():
        raise UserError(f"unknown backbone '{name}'{did_you_mean(name, timm.list_models())[:300]}")
    net: Any
    net, fitting, head, merged = _fitted(weights, state, name)
    last = next((value for key, value in head.items() if key.endswith("weight") and value.ndim == 2), None)
    if output == "features" or last is None:
        net.load_state_dict(fitting, strict=False)
        return net.eval(), 0
    net = timm.create_model(name, num_classes=len(last))
    net = folding.merge_branches(net) if merged else net
    net.load_state_dict(fitting, strict=False)  # counters of BatchNorm batches may be absent; fit has checked the rest
    own: Any = net.get_classifier()
    given = {key.rpartition(".")[2]: value for key, value in head.items()}
    expected = {key: tuple(value.shape) for key, value in own.state_dict().items()}
    if (shapes := {key: tuple(value.shape) for key, value in given.items()}) != expected:
        raise UserError(
            f"the classifier in {weights} has {shapes}, that of {name} {expected}; use --output features, or the "
            "network that it was trained with"
        )
    own.load_state_dict(given)
    return net.eval(), len(last)


def _fitted(
    weights: Path, state: Mapping[str, Tensor], name: str
) -> tuple[nn.Module, dict[str, Tensor], dict[str, Tensor], bool]:
    """The network without its classifier, its tensors, those of the classifier, and whether branches are merged.

    Checkpoints of MobileOne, FastViT or RepViT may have been reparameterized already: then the network must be.
    """
    import timm

    net = timm.create_model(name, num_classes=0)
    try:
        return net, *layouts.fit_with_head(state, net, name, str(weights)), False
    except UserError as error:
        if not folding.has_branches(net):
            raise
        merged = folding.merge_branches(net)
        try:
            return merged, *layouts.fit_with_head(state, merged, name, str(weights)), True
        except UserError:
            raise error from None  # the names of the network as it is published say more


def _spec(net: nn.Module) -> InputSpec:
    """What the weights were trained with, as timm records it."""
    about: Any = net.pretrained_cfg
    size = int(about["input_size"][-1])
    interpolation = "bicubic" if about.get("interpolation") == "bicubic" else "bilinear"
    resize = round(size / float(about.get("crop_pct") or 1.0))
    return InputSpec(size, resize, tuple(about["mean"]), tuple(about["std"]), interpolation)  # type: ignore[arg-type]


def _resized(spec: InputSpec, size: int | None) -> InputSpec:
    if size is None or size == spec.size:
        return spec
    return InputSpec(size, round(size * spec.resize / spec.size), spec.mean, spec.std, spec.interpolation)


def _labels(labels: str | Path | Sequence[str] | None, classes: int) -> tuple[str, ...]:
    if labels is None:
        return tuple(str(index) for index in range(classes))
    where = "the list of labels"
    if isinstance(labels, str | Path):
        where = str(labels)
        try:
            text = Path(labels).read_text(encoding="utf-8-sig")  # editors on Windows put a byte order mark first
            labels = [line.strip() for line in text.splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{where} cannot be read as labels, one on each line ({error})") from error
    if len(labels) != classes:
        raise UserError(f"{where} has {len(labels)} labels, the classifier {classes} classes")
    return tuple(labels)


def readable(root: Path, count: int, seed: int) -> FileImages:
    """A seeded sample of images below ``root`` that can be decoded; UserError when there is none."""
    from softedge.data.decoding import BadImage
    from softedge.data.folders import scan

    if not root.is_dir():
        raise UserError(
            f"images folder {root} does not exist; give a folder of real images to calibrate and compare on"
        )
    names = scan(root).names
    images = FileImages(root, names, np.full(len(names), UNLABELLED))
    good: list[int] = []
    for index in np.random.default_rng(seed).permutation(len(names)):
        if len(good) == count:
            break
        try:
            images.decode(int(index))
        except BadImage:
            continue
        good.append(int(index))
    if not good:
        raise UserError(f"{root} has no readable images; give a folder of real images to calibrate and compare on")
    return images.subset(good)
