"""Was pretraining worth it? The table of the "labels" stage of one run, as Markdown, with its sentences.

python benchmarks/labels.py RUN --seeds 3 --int8 onnx [--epochs 50] [--picture FILE.svg]

An interrupted call goes on when it is repeated: every training and exported file is a cell of RUN/labels.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from softedge import data as data_module
from softedge.report.learning_charts import label_efficiency
from softedge.run import write_text
from softedge.stages.labels import stage as labels
from softedge.stages.opening import reopen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--fractions", nargs="+", type=float, default=[0.01, 0.1, 1.0])
    parser.add_argument("--epochs", type=int, default=50, help="of each fine-tuning, at least 200 steps")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--given", nargs="*", default=[], help="further initial weights")
    parser.add_argument("--picture", type=Path, help="an SVG file of the table")
    parser.add_argument("--int8", default="", choices=("", "onnx", "openvino"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    run, recipe = reopen(
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
    if options.picture:
        write_text(options.picture, picture(result.details["rows"]))
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


def picture(rows: list[dict[str, Any]]) -> str:
    """The report's charts of both methods side by side as a picture of its own; int8 files have lines of their own."""
    width, charts = 430, []
    names = {"ssl": "pretrained", "random": "random weights"}
    for number, (method, title) in enumerate((("probe", "linear layer"), ("finetune", "fine-tuned"))):
        lines: dict[tuple[str, str], list[list[float]]] = {}
        for row in rows:
            if row["method"] == method:
                point = [row["n_labels"], row["mean"], row["low"], row["high"]]
                lines.setdefault((row["init"], row["file"]), []).append(point)
        drawn = [
            (names.get(init, init) + (", int8" if file != "pytorch" else ""), colour, sorted(points))
            for colour, ((init, file), points) in enumerate(sorted(lines.items()))
        ]
        chart = str(label_efficiency(method, float(width), drawn))
        place = f'x="{number * width + 20}" y="24" width="{width}" height="300"'
        charts.append(chart.replace("<svg ", f"<svg {place} ", 1))
        charts.append(f'<text x="{number * width + 72}" y="18" class="strong">{title}</text>')
    colours = (
        "#e0a574",
        "#b85008",
        "#8fb4de",
        "#2563a8",
    )  # random's int8 file, random, pretrained's int8 file, pretrained
    style = "text{font:13px sans-serif;fill:#1d2024}.tick,.name{fill:#545a63;font-size:12px}.strong{font-weight:600}"
    style += ".middle{text-anchor:middle}.end{text-anchor:end}.axis{stroke:#545a63}.grid{stroke:#ebe8e1}"
    style += ".line{fill:none;stroke-width:2}"
    for number, colour in enumerate(colours):
        style += f".line-{number}{{stroke:{colour}}}.ink-line-{number},.dot-line-{number}{{fill:{colour}}}"
    size = f'viewBox="0 0 {2 * width + 60} 330" width="{2 * width + 60}" height="330"'
    frame = f'<svg xmlns="http://www.w3.org/2000/svg" {size}>'
    background = '<rect width="100%" height="100%" fill="#fdfcfa"/>'
    return f"{frame}<style>{style}</style>{background}{''.join(charts)}</svg>\n"


if __name__ == "__main__":
    main()
