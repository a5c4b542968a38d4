"""A CIFAR-10 classifier worth quantizing, in CPU minutes: softedge's fine-tuning stage, small images first.

    python benchmarks/cifar_networks.py --data .data/cifar10 --model mobilenetv3_small_100 --stages 32:10 48:10 --out O

Every stage ``SIZE:EPOCHS`` is a run of its own (``O/SIZE``), started from the weights of the one before; a stage that
is done is skipped. The classifier is in the last one: ``finetune/classifier.safetensors``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from softedge.stages.finetune import finetune
from softedge.stages.opening import choose_recipe, started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="CIFAR-10 as class folders, train/ and test/")
    parser.add_argument("--model", required=True)
    parser.add_argument("--stages", nargs="+", required=True, help="SIZE:EPOCHS or SIZE:EPOCHS:RATE, in order")
    parser.add_argument("--init", default="random", help="weights to start from; else from scratch")
    parser.add_argument("--precision", default="auto", help="bf16 is faster on processors that compute in it")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    weights = options.init
    for stage in options.stages:
        size, epochs, *rate = stage.split(":")
        out = options.out / size
        values = {
            "data.size": size,
            "data.resize": size,
            "data.mean": "auto",
            "data.std": "auto",
            "data.workers": 0,
            "backbone.name": options.model,
            "finetune.init": weights,
            "finetune.epochs": epochs,
            "finetune.batch": 128,
            "finetune.lr": rate[0] if rate else 2e-3,
            "finetune.layer_decay": 1.0,
            "finetune.label_smoothing": 0.0,
            "finetune.min_area": 0.5,
            "finetune.precision": options.precision,
            "export.source": "finetune",
        }
        settings = [f"{key}={value}" for key, value in values.items()]
        with started(out, choose_recipe(options.data, "supervised", settings)):
            pass
        result = finetune(out)
        print(options.model, stage, result.metrics, f"{result.seconds:.0f} s", flush=True)
        weights = str(out / "finetune" / "classifier.safetensors")


if __name__ == "__main__":
    main()
