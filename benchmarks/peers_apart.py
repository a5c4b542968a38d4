"""Peers whose versions of torch and timm are not softedge's: ``peers.py`` runs this file in the Python given for each.

    PYTHON benchmarks/peers_apart.py lightly-train JOB.json

JOB.json is written by ``peers.py``: the folder of photos (``train/CLASS/*``, ``test/CLASS/*``), ImageNet weights in
timm's names, seconds of processor time, seed, pixels, batch.  The last line printed is a JSON object: top1, epochs,
minutes, version.  Nothing of softedge is imported here.  lightly-train is AGPL-3.0, AutoGluon Apache-2.0.

lightly-train: ``train_image_classification`` from the given weights, its defaults but for a warm-up of 5 % of the steps
(its 500 are most of what fits), no workers and fp32 (bf16 is no faster on a CPU).
lightly-train-pretrained: a quarter of the time for ``pretrain`` before it, from the same weights: its default method,
distillation, at its defaults, taught by EfficientNet-Lite2 with ImageNet weights (its own teachers are downloads).
autogluon: ``MultiModalPredictor`` from the given weights, its preset for small networks, as many epochs as fit; it
holds out its own validation photos from the training photos.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Job = dict[str, Any]


def main() -> None:
    name, job = sys.argv[1], json.loads(Path(sys.argv[2]).read_text())
    os.environ |= {"LIGHTLY_TRAIN_EVENTS_DISABLED": "1", "HF_HUB_OFFLINE": "1"}
    # The allocator of softedge/memory.py, so that minutes mean the same.
    library = ctypes.CDLL(None)
    library.mallopt(-4, 0)
    library.mallopt(-1, 1 << 30)
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="softedge-peers-") as scratch:
        row = PEERS[name](job, Path(scratch))
    print(json.dumps(row))


def photos(job: Job, part: str) -> list[tuple[str, str]]:
    """File and class of each photo of "train" or "test"."""
    return sorted((str(file), file.parent.name) for file in Path(job["photos"], part).glob("*/*"))


def steps_that_fit(train: Callable[[int], None], seconds: float) -> int:
    """From the processor time of 1 and of 5 steps; a first run pays for what is done once in a process."""

    def timed(steps: int) -> float:
        start = time.process_time()
        train(steps)
        return time.process_time() - start

    timed(1)
    one, five = timed(1), timed(5)
    return max(1, int(1 + (seconds - one) * 4 / (five - one)))


def lightly_train(job: Job, scratch: Path, share: float = 0.0) -> Job:
    """share: of the time for the pretraining."""
    import lightly_train as package  # type: ignore[import-not-found]  # AGPL-3.0: never a dependency
    from timm.models.efficientnet import EfficientNet

    # 0.18 reads the 320 channels of forward_intermediates where it expects num_features, 1280; without it, all of them.
    del EfficientNet.forward_intermediates
    train, test = photos(job, "train"), photos(job, "test")
    classes = sorted({label for _, label in train})
    few = {label: file for file, label in reversed(train)}  # it wants validation photos; one a class, nothing is chosen
    for part, rows in (("train", train), ("val", [(file, label) for label, file in few.items()])):
        lines = ["image_path,label", *(f"{file},{label}" for file, label in rows)]
        (scratch / f"{part}.csv").write_text("\n".join(lines))
    common = {"out": scratch / "out", "overwrite": True, "num_workers": 0, "accelerator": "cpu", "devices": 1}
    common |= {"batch_size": job["batch"], "seed": job["seed"]}
    size = {"image_size": (job["size"], job["size"]), "normalize": {"mean": job["mean"], "std": job["std"]}}
    per_epoch, spent, pretrained = len(train) // job["batch"], 0.0, 0
    weights = job["weights"]

    def pretrain(steps: int) -> None:
        package.pretrain(
            data=[file for file, _ in train],
            model="timm/tf_efficientnet_lite0",
            model_args={"num_classes": 0, "checkpoint_path": job["weights"]},
            method_args={
                "teacher": "timm/tf_efficientnet_lite2",
                "teacher_args": {"num_classes": 0},
                "teacher_weights": job["teacher"],
            },
            epochs=math.ceil(steps / per_epoch),
            trainer_args={"max_steps": steps},
            transform_args=size,
            **common,
        )

    def finetune(steps: int) -> None:
        package.train_image_classification(
            data={
                "train": str(scratch / "train.csv"),
                "val": str(scratch / "val.csv"),
                "classes": dict(enumerate(classes)),
            },
            model="timm/tf_efficientnet_lite0",
            model_args={"backbone_weights": weights, "lr_warmup_steps": max(1, steps // 20)},
            steps=steps,
            gradient_accumulation_steps=1,
            precision="32-true",
            transform_args=size,
            logger_args={"val_every_num_steps": steps},
            **common,
        )

    if share:
        pretrained = steps_that_fit(pretrain, share * job["seconds"])
        start = time.process_time()
        pretrain(pretrained)
        spent = time.process_time() - start
        weights = str((scratch / "out/exported_models/exported_last.pt").rename(scratch / "pretrained.pt"))
    steps = steps_that_fit(finetune, job["seconds"] - spent)
    start = time.process_time()
    finetune(steps)
    spent += time.process_time() - start
    model = package.load_model(scratch / "out/exported_models/exported_last.pt", device="cpu")
    right = sum(classes[int(model.predict(file)["labels"][0])] == label for file, label in test)
    epochs = {"epochs": round(steps / per_epoch, 1)} | ({"pretrain_epochs": pretrained / per_epoch} if share else {})
    return {"top1": right / len(test), "minutes": spent / 60, "version": package.__version__} | epochs


def autogluon(job: Job, scratch: Path) -> Job:
    import pandas  # type: ignore[import-untyped]
    from autogluon.multimodal import MultiModalPredictor, version  # type: ignore[import-not-found]

    local = scratch / "weights"  # as AutoGluon reads a timm network that is not from the hub
    local.mkdir()
    (local / "pytorch_model.bin").symlink_to(job["weights"])
    described = {"architecture": "tf_efficientnet_lite0", "num_features": 1280, "mean": job["mean"], "std": job["std"]}
    described["input_size"] = [3, job["size"], job["size"]]
    (local / "config.json").write_text(json.dumps(described))
    train, test = (pandas.DataFrame(photos(job, part), columns=["image", "label"]) for part in ("train", "test"))
    options: dict[str, Any] = {"model.names": ["timm_image"], "model.timm_image.checkpoint_name": str(local)}
    options |= {"env.num_gpus": 0, "env.num_workers": 0, "env.num_workers_inference": 0}

    def fit(epochs: int) -> tuple[Any, float]:
        start = time.process_time()
        predictor = MultiModalPredictor(label="label", problem_type="multiclass", path=str(scratch / f"fit{epochs}"))
        options["optim.max_epochs"] = epochs
        predictor.fit(train, presets="medium_quality", hyperparameters=options, seed=job["seed"])
        return predictor, time.process_time() - start

    epochs = max(2, int(job["seconds"] / fit(1)[1]))
    predictor, spent = fit(epochs)
    right = int((predictor.predict(test) == test["label"]).sum())
    return {"top1": right / len(test), "epochs": epochs, "minutes": spent / 60, "version": version.__version__}


PEERS: dict[str, Callable[[Job, Path], Job]] = {
    "lightly-train": lightly_train,
    "lightly-train-pretrained": lambda job, scratch: lightly_train(job, scratch, share=0.25),
    "autogluon": autogluon,
}


if __name__ == "__main__":
    main()
