"""The parts of ``gpu.py``: generators of rows, each (name, seconds at most, work)."""

from __future__ import annotations

import contextlib
import copy
import functools
import gc
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from cifar import PLACE, generated, pack, probed, read
from gpu_session import Rows, Session, child
from numpy.typing import NDArray
from pace import images_per_second

from softedge import backbones, config, registry
from softedge.data.images import Data
from softedge.data.views import ViewLoader
from softedge.errors import Interrupted
from softedge.machine.provenance import cpu_name
from softedge.records import InputSpec
from softedge.run import Run
from softedge.ssl import sizing, whole_set
from softedge.ssl.train import Training

__all__ = ["additive", "checks", "cifar10", "environment", "generated", "pack", "read", "speed"]


def environment() -> dict[str, str]:
    import timm

    name = torch.cuda.get_device_name() if PLACE.type == "cuda" else cpu_name()
    return {"device": name, "torch": torch.__version__, "cuda": str(torch.version.cuda), "timm": timm.__version__}


# --- training


def trained(
    recipe: config.Recipe, data: Data, folder: Path, seconds: float, minutes: float = 0.0
) -> tuple[Training, str, float]:
    """Train from the last checkpoint, at most for ``seconds``. Returns the training, why it stopped early ("" where it
    did not) and images per second.

    minutes: plan as many epochs as they hold, by the pace of twenty steps after twenty others; planned once, then kept
    in ``plan.json``, so that a later call trains the same schedule.
    """
    folder.mkdir(parents=True, exist_ok=True)
    began, plan = time.monotonic(), folder / "plan.json"
    if minutes and not plan.is_file():
        pace = images_per_second(recipe, data, folder / "pace", 20)
        plan.write_text(json.dumps({"epochs": max(1, int(60 * minutes * pace / len(data.pretrain))), "pace": pace}))
    if minutes:
        epochs = json.loads(plan.read_text())["epochs"]
        recipe = config.build(
            recipe.model_dump(mode="json"), [f"ssl.epochs={epochs}", f"optim.warmup_epochs={epochs / 20}"]
        )
    training = Training(Run(folder), recipe, data, folder)
    why = ""
    with _stopped_after(seconds - (time.monotonic() - began)):
        try:
            training.work()
        except Interrupted as stop:
            why = str(stop).partition(",")[0]
    return training, why, _pace(training)


def _pace(training: Training) -> int:
    """Images per second by the training's own log: of all its starts, not of the last one alone."""
    logged = [entry for entry in training.journal.entries if "seconds" in entry]
    seconds = sum(entry["seconds"] for entry in logged)
    return round(logged[-1]["step"] * training.recipe.ssl.batch / seconds) if seconds else 0


@contextlib.contextmanager
def _stopped_after(seconds: float) -> Iterator[None]:
    """SIGTERM to this process, on which a training writes its checkpoint; none of it reaches what comes after.

    Sent again every second: a training does not listen yet while it reads its checkpoint.
    """
    before, over = signal.signal(signal.SIGTERM, signal.SIG_IGN), threading.Event()

    def send() -> None:
        wait = max(seconds, 1.0)
        while not over.wait(wait):
            os.kill(os.getpid(), signal.SIGTERM)
            wait = 1.0

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    try:
        yield
    finally:
        over.set()
        sender.join()
        signal.signal(signal.SIGTERM, before)


def _afresh() -> None:
    """Drop what earlier rows have left: torch.compile takes 8 networks in a process and runs further ones uncompiled,
    and compiled networks and their CUDA graphs hold memory that would count as this row's."""
    torch.compiler.reset()
    gc.collect()
    if PLACE.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


@functools.cache
def _compiles() -> bool:
    """Whether torch.compile works here: it needs a C compiler besides."""
    try:
        torch.compile(torch.nn.Softmax(1))(torch.zeros(8, 8, device=PLACE))
    except Exception as error:
        print(f"torch.compile does not work here: {(str(error).splitlines() or [''])[0][:200]}", flush=True)
        return False
    return True


# --- parts


def checks(session: Session, data: Data) -> Rows:
    yield "pytest", 240, partial(_pytest, session)
    for method in registry.METHODS.own:
        if method != "seed":  # needs a teacher's weights; its loss is the cross-entropy that the others use
            yield f"one step of {method}", 30, partial(_one_step, session, method)


def _pytest(session: Session, seconds: float) -> dict[str, Any]:
    # Only the files with such tests: others import packages that a GPU machine need not have.
    tests = Path(__file__).resolve().parents[1] / "tests"
    files = [str(path) for path in sorted(tests.rglob("test_*.py")) if "mark.gpu" in path.read_text()]
    slow = [] if session.dry else ["--slow"]
    code, text = child(["-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *slow, *files], seconds)
    last = text.splitlines()[-1] if text else "no output"
    return {"exit": code, "last": last} | ({"unfinished": "out of time"} if code == 124 else {})


def _one_step(session: Session, method: str, seconds: float) -> dict[str, Any]:
    """Relative differences of loss and gradient between this device and the CPU, float32 without TF32."""
    values: dict[str, dict[str, Any]] = {
        "data": {"size": 32, "workers": 0},
        "backbone": {"name": "mobilenetv3_small_050"},
        "ssl": {"method": method, "batch": 32, "epochs": 1, "knn_every": 0},
        "optim": {"precision": "fp32"},
    }
    known = type(config.build({"ssl": {"method": method}}).ssl).model_fields
    wanted: dict[str, Any] = {"queue": 64, "neighbors": 5, "key_norm": "batch", "prototypes": 512}
    wanted |= {"instance_epochs": 0, "clusters": (4,)}
    values["ssl"] |= {key: value for key, value in wanted.items() if key in known}
    recipe, data = config.build(values), generated(64)
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        backbone = backbones.build(recipe.backbone, 0)
        kind = registry.lookup(registry.METHODS, method, "method")
        here = kind.build(recipe, backbone, data.pretrain).train()
        here.before_epoch(0, partial(_embedded, data))
        there = copy.deepcopy(here).to(PLACE)
        batches = ViewLoader(data.pretrain, here.views(recipe, 32), 32, 0, 0).epoch(0)
        found: dict[str, list[float]] = {"loss": [], "gradient": []}
        for views, index in batches:  # the first step of a queue has no negatives: the second one counts
            losses, gradients = [], []
            for each, place in ((here, torch.device("cpu")), (there, PLACE)):
                torch.manual_seed(0)
                loss = each([backbones.normalise(view.to(place), data.spec) for view in views], index.to(place))
                each.zero_grad(set_to_none=True)
                loss.backward()
                each.after_step(0.5)
                losses.append(loss.item())
                flat = [p.grad.flatten().double().cpu() for p in each.trained_parameters() if p.grad is not None]
                gradients.append(torch.cat(flat))
            found["loss"].append(abs(losses[1] - losses[0]) / max(abs(losses[0]), 1e-12))
            scale = gradients[0].norm().clamp_min(1e-12)
            found["gradient"].append(float((gradients[1] - gradients[0]).norm() / scale))
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
    return {f"{name}_difference": f"{max(values):.1e}" for name, values in found.items()}


def _embedded(
    data: Data, network: torch.nn.Module, chosen: NDArray[np.int64] | None = None, spec: InputSpec | None = None
) -> torch.Tensor:
    return whole_set.embed(network, data.pretrain, spec or data.spec, torch.device("cpu"), chosen)


def cifar10(session: Session, data: Data) -> Rows:
    for minutes in (0.02, 0.03) if session.dry else (2.0, 8.0):
        # The rest is the probe's, and that of the pace, of compiling and of describing the images.
        yield f"{minutes:g} minutes", 60 * minutes + 180, partial(_speed_run, session, data, minutes)


def _speed_run(session: Session, data: Data, minutes: float, seconds: float) -> dict[str, Any]:
    name, batch = ("mobilenetv3_small_050", 32) if session.dry else ("mobilenetv3_large_100", 512)
    _afresh()
    compiled = PLACE.type == "cuda" and _compiles()
    recipe = config.load(
        "visual-words",
        [
            f"backbone.name={name}",
            f"ssl.batch={batch}",
            "ssl.knn_every=0",
            "ssl.checkpoint_every=10",
            f"optim.compile={str(compiled).lower()}",
        ],
    )
    folder = session.out / f"cifar10-{minutes:g}"
    training, why, pace = trained(recipe, data, folder, seconds - (0 if session.dry else 40), minutes)
    numbers: dict[str, Any] = {
        "epochs": training.recipe.ssl.epochs,
        "compiled": compiled,
        "images_per_second": pace,
    }
    if why:
        return {**numbers, "unfinished": why}
    return numbers | _probed(session, folder, data)


def _probed(session: Session, folder: Path, data: Data) -> dict[str, float]:
    backbone = backbones.load(folder / "backbone.safetensors").to(PLACE)
    return probed(backbone, data, 2, 1) if session.dry else probed(backbone, data)


def speed(session: Session, data: Data) -> Rows:
    photos = generated(64, 48) if session.dry else generated(2048, 256)
    size = 40 if session.dry else 224
    for name in ("mobilenetv3_small_050",) if session.dry else ("mobilenetv3_large_100", "efficientnet_b0"):
        for how in ("false",) if session.dry else ("false", "true", "graphs"):
            for queue in (64,) if session.dry else (65536, 262144):
                row = f"{name}, {size} pixels, queue {queue}, compile {how}"
                yield row, 100, partial(_throughput, session, photos, name, size, queue, how)
    yield "loss", 90, partial(_losses, session)


def _throughput(
    session: Session, photos: Data, name: str, size: int, queue: int, how: str, seconds: float
) -> dict[str, Any]:
    batch = 8 if session.dry else 256
    settings = [f"backbone.name={name}", f"ssl.queue={queue}", f"ssl.batch={batch}", f"optim.compile={how}"]
    if session.dry:
        settings += ["ssl.neighbors=5", "ssl.key_norm_groups=2"]
    recipe = config.load("light-moco", [*settings, f"data.size={size}", "ssl.knn_every=0", "ssl.queue_dtype=bf16"])
    spec = InputSpec(size, size, photos.spec.mean, photos.spec.std)
    images = photos.pretrain
    data = Data("generated", (), spec, images, images, images)
    _afresh()
    # The queue of a large data set, full of keys: a few photos would shorten it, and an empty one costs nothing.
    with mock.patch.object(sizing, "queue_size", lambda recipe, images: recipe.ssl.queue_length()):
        pace = images_per_second(recipe, data, session.out / "pace", 2 if session.dry else 20, full_queue=True)
    peak = torch.cuda.max_memory_allocated() / 2**20 if PLACE.type == "cuda" else 0.0
    return {"images_per_second": round(pace), "peak_mib": round(peak), "batch": batch}


def _losses(session: Session, seconds: float) -> dict[str, Any]:
    few = ["--queue", "2048", "--batch", "8", "--rounds", "1"] if session.dry else ["--batch", "256", "1024"]
    code, text = child([str(Path(__file__).with_name("loss.py")), *few], seconds)
    if code:
        return {"unfinished": text.splitlines()[-1]}
    table = [line for line in text.splitlines() if line.startswith("| ") and "pass" in line]
    print(text, flush=True)
    return {"rows": table}


def additive(session: Session, data: Data) -> Rows:
    from additive import STEPS

    names = (
        ("mobilenetv3_small_050",)
        if session.dry
        else ("mobilenetv3_small_100", "mobilenetv3_large_100", "efficientnet_b0")
    )
    for name in names:
        for seed in session.seeds[:1] if session.dry else session.seeds:
            for step, paper in list(STEPS.items())[-2:] if session.dry else STEPS.items():
                row = f"{name}, seed {seed}, {step}"
                # All epochs of one network rather than a part of those of four.
                yield row, 600, partial(_additive_row, session, data, name, seed, paper)


def _additive_row(session: Session, data: Data, name: str, seed: int, paper: str, seconds: float) -> dict[str, Any]:
    from additive import carried_over, described

    settings = [f"backbone.name={name}"]
    if session.dry:
        settings += ["ssl.batch=32", "ssl.queue=128", "ssl.neighbors=5", "ssl.key_norm_groups=2"]
    small = config.load("cifar10-mobilenetv3-large", settings)
    values = carried_over(small, paper, 1 if session.dry else 30) | {"seed": seed}
    values["ssl"]["checkpoint_every"] = 10
    if "neighbors" in values["ssl"] and session.dry:
        values["ssl"]["neighbors"] = 5
    folder = session.out / f"additive-{name}-{paper}-{seed}"
    training, why, pace = trained(config.build(values), data, folder, seconds - (0 if session.dry else 20))
    numbers: dict[str, Any] = {
        "set": described(values),
        "epochs": training.recipe.ssl.epochs,
        "images_per_second": pace,
    }
    if why:
        return {**numbers, "unfinished": why}
    return numbers | _probed(session, folder, data)
