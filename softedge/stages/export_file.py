"""``softedge export-file``: weights that softedge did not train become a run, with all that runs have.

The network is kept in ``network/``, the images are split into some to calibrate and to choose on, and some to test on.
From there on the stages of every run do the work: export, int8 search, check, bench, gates, report.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from softedge import config, registry
from softedge.data import load
from softedge.data.images import UNLABELLED, FileImages
from softedge.errors import UserError, need_lists, whole
from softedge.export import calibration, given
from softedge.export.base import Float32
from softedge.export.given import AS_KNOWN, GivenPreprocessing, read
from softedge.records import Outcome, Output, Result
from softedge.run import Run, perform, sha256
from softedge.stages import export as exporting
from softedge.stages.data import opened
from softedge.stages.gate import optional_precisions
from softedge.stages.opening import absolute, refuse_another, replaced, started

NETWORK = "network/network.safetensors"
STAGES = ("quantize", "check", "bench", "gate")  # after the export
_HELD_OUT = 0.5  # of the images: nothing is trained on the others, and a few hundred calibrate
_AT_LEAST = 2 * calibration.FEW  # images from which a half is held out


def export_file(
    weights: str | Path,
    out: str | Path,
    images: str | Path,
    backbone: str | None = None,
    labels: str | Path | Sequence[str] | None = None,
    size: int | None = None,
    targets: Sequence[str] = registry.DEFAULT_FORMATS,
    precisions: Sequence[str] | None = None,
    output: Literal["probabilities", "features"] = "probabilities",
    batch: str = "dynamic",
    calibration_images: int = 300,
    golden_images: int = 8,
    seed: int = 0,
    force: bool = False,
    preprocessing: GivenPreprocessing = AS_KNOWN,
    set: Sequence[str] = (),
    activation: Literal["softmax", "sigmoid"] = "softmax",
    head: str | None = None,
) -> list[Result]:
    """Make the run ``out`` from a weights file and write ``out/export/<target>-<precision>``.

    weights: a softedge file (.safetensors), or a timm state dict (.safetensors, .pth) with its architecture's name in
    ``backbone``; the name's tag says that the weights have the preprocessing of timm's weights of that tag.
    images: a folder of real images; half of them calibrate int8, the others are kept to test on (of few images all
    calibrate).  Folders named like the labels are their labels.
    labels: names, or a file with one on each line, in the order of the classifier; numbers when absent.
    size: input height = width; that of the weights by default.  preprocessing: what else is known of the weights.
    What is not given is read from ``config.json`` beside them, else of the tag, else it is timm's default for the
    architecture; a line says which.
    precisions: None tries fp32, fp16 and int8, and a refused int8 file is a caution where others of its format pass; an
    int8 file that was asked for has to pass, and so where ``set`` has a limit.
    output: "probabilities", or "features" to leave the classifier off (the only choice for a backbone).
    activation: what the classifier was trained with; with "sigmoid" (binary cross-entropy: one output, or any number of
    labels an image) the files give "scores", one for each label.
    head: the activation between the linear layers of a classifier of several ("relu"), which weights do not say.
    Raises UserError for weights, labels or images that do not fit.
    """
    need_lists(targets=targets, precisions=precisions, set=set)
    if output not in ("probabilities", "features") or batch not in ("dynamic", "one"):
        raise UserError(f"output is probabilities or features, batch dynamic or one; found '{output}' and '{batch}'")
    if activation not in ("softmax", "sigmoid"):
        raise UserError(f"--activation is softmax or sigmoid; found '{activation}'")
    if activation == "sigmoid" and output == "features":
        raise UserError("features have no activation; leave out --activation or --output features")
    kind: Output = "scores" if activation == "sigmoid" else output
    size = None if size is None else whole("--size", size, why=": the input's height and width in pixels, such as 224")
    seed = whole("seed", seed, 0)
    calibration_images, golden_images = (
        whole(name, value)
        for name, value in (("calibration_images", calibration_images), ("golden_images", golden_images))
    )
    tried = config.Export().precisions if precisions is None else tuple(precisions)
    of_export = [item for item in set if item.startswith("export.")]
    formats = {"targets": list(targets), "precisions": list(tried), "batch": batch}
    exporting.known_names(config.build({"export": formats}, of_export, source="the command line"))
    weights, root = Path(weights), Path(images)
    digest = sha256(weights) if weights.is_file() else ""
    deployed, name = read(weights, backbone, labels, size, kind, preprocessing, head)
    deployed.about = {**exporting.origin(digest, name), **deployed.about}
    asked = {
        **formats,
        "output": deployed.output,
        "calibration_images": calibration_images,
        "golden_images": golden_images,
        "source": "given",
    }
    spec, sample = deployed.spec, readable(root, _AT_LEAST, seed)
    few = sample.subset(np.arange(min(4, len(sample)))).prepared(spec)
    if (few != few[:1]).any():
        refuse_dead(deployed.predict(few), weights)
    data = {
        "source": absolute(root),
        **{key: getattr(spec, key) for key in ("size", "resize", "mean", "std", "interpolation")},
        "classes": deployed.labels,
        "test_fraction": _HELD_OUT,
        # A mistake with the folder shows now, not in every format.
        "hold_out": "all" if len(sample) == _AT_LEAST else "none",
    }
    values = {"seed": seed, "data": data, "backbone": {"name": name}, "export": asked}
    recipe = config.build(values, set, source="the command line")
    limited = any(item.startswith(("check.max_drop", "check.min_agreement")) for item in set)
    recipe = replaced(recipe, check={"optional": optional_precisions(recipe, precisions is not None or limited, set)})
    inputs = {weights.name: digest}
    if not force:
        refuse_another(Run(out), "network", weights, inputs)
    with started(out, recipe, force) as run:
        kept: dict[str, Any] = {"backbone": name, "labels": list(deployed.labels), "output": deployed.output}
        kept |= {"spec": spec.to_dict(), **({"bgr": True} if preprocessing.bgr else {})}
        kept |= {key: value for key in ("options", "head") if (value := getattr(deployed, key))}
        perform(
            run,
            "network",
            lambda folder: _kept(folder, deployed, name, weights),
            recipe=kept,
            inputs=inputs,
            force=force,
            renew=True,
        )
        return exporting.stage(run, recipe, opened(run, recipe, force), force)


def refuse_dead(answers: Float32, file: Path) -> None:
    """UserError for answers (N, C) to different images that are all the same, or no numbers."""
    if not np.isfinite(answers).all() or (answers == answers[:1]).all():
        what = "the same for every image" if np.isfinite(answers).all() else "no numbers (NaN)"
        raise UserError(
            f"the answers of {file} are {what}: its weights are damaged or missing, or --mean and --std are wrong"
        )


def _kept(folder: Path, deployed: given.Deployed, name: str, weights: Path) -> Outcome:
    given.save(folder / Path(NETWORK).name, deployed, name)
    details = {"backbone": name, "from": absolute(weights), **deployed.about}
    return Outcome(metrics={"n_classes": len(deployed.labels)}, details=details)


def judge(out: str | Path, devices: Sequence[str] = (), force: bool = False) -> Run:
    """The rest of the chain for a run of ``export_file``: int8 search, check, bench on ``devices``, gate, report."""
    from softedge.stages.opening import reopened
    from softedge.stages.report import report

    with reopened(out, bench={"devices": devices or None}) as (run, recipe):
        data = load(run)
        for name in STAGES:
            if name != "bench" or devices:
                importlib.import_module(f"softedge.stages.{name}").stage(run, recipe, data, force)
        report(run.root)
    return run


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
