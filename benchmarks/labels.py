"""Was pretraining worth it? The table of the "labels" stage of one run, as Markdown, with its sentences.

python benchmarks/labels.py RUN --seeds 3 --int8 onnx [--epochs 50] [--picture FILE.svg]

An interrupted call goes on when it is repeated: every training and exported file is a cell of RUN/labels.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from softedge import data as data_module
from softedge import pipeline
from softedge.eval.labels import labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--fractions", nargs="+", type=float, default=[0.01, 0.1, 1.0])
    parser.add_argument("--epochs", type=int, default=50, help="of each fine-tuning, at least 200 steps")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--given", nargs="*", default=[], help="further initial weights")
    parser.add_argument("--int8", default="", choices=("", "onnx", "openvino"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    run, recipe = pipeline.reopen(
        options.run,
        [
            f"labels.fractions={options.fractions}",
            f"labels.seeds={options.seeds}",
            f"labels.given={options.given}",
            f"labels.int8={options.int8!r}",
            f"finetune.epochs={options.epochs}",
        ],
    )
    result = labels(run, recipe, data_module.load(run))
    print("| labels | method | start | file | top-1 (mean, 95% interval) | seeds |")
    print("|---|---|---|---|---|---|")
    for row in result.details["rows"]:
        each = ", ".join(f"{100 * value:.1f}" for value in row["top1"])
        print(
            f"| {100 * row['fraction']:g}% ({row['n_labels']}) | {row['method']} | {row['init']} | {row['file']} | "
            f"{100 * row['mean']:.1f} ({100 * row['low']:.1f} to {100 * row['high']:.1f}) | {each} |"
        )
    print(f"\n{result.details['verdict']['headline']}\n")
    for sentence in result.details["verdict"]["sentences"]:
        print(f"- {sentence}")
    print(f"\n{result.metrics['n_test']} test images; {result.details['scope']}; {result.seconds:.0f} s.")


if __name__ == "__main__":
    main()
