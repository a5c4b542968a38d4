"""What another machine, another day or another processor would print otherwise, taken out of a command's output.

Words, headings and their order stay, and so do counts of images: they are what ``golden/`` pins.
"""

from __future__ import annotations

import re
from pathlib import Path

_UNITS = r"(?: ?(?:ms|s|min|minutes|hours|KB|MB|GB|dB|images/s|x)\b| ?%)"

# Lines that come or stay away with the speed or the accuracy of a processor.
_DROPPED = (
    r"^[^:]+: \d+/(\d+|\?)$",  # progress, every ten seconds
    r"^finetune: validation accuracy .* is below |^  ONNX fp32: (top-1|p90)",  # by the accuracy, and whether it differs
    r"^fetching |^weights: ",  # by what a cache holds
    r"^int8, comparing: ",  # where a comparison takes ten seconds
    r"^disturbed: other work ran meanwhile",  # of bench: by the machine
    r"^\d+ of them (is a test image|are test images) ",  # of label-issues: by accuracy
    r"^weak features: ",  # of label-issues: by accuracy
    r"^caution: [A-Z]",  # of the report: by speed and accuracy
    r"^caution: \d+ of \d+ test images have the same answer",  # of quantize FILE: by accuracy
)

# In this order. Each: what is looked for, and what stands for it.
_MASKS = (
    (r"https?://\S+", "<address>"),
    (r"\b\d{4}-\d\d-\d\d(T[\d:+.]+)?\b", "<date>"),
    (r"\b[0-9a-f]{12,64}\b", "<hash>"),
    (r"^(python|processor|versions|gpu|free disk here)  .*", r"\1  <this machine's>"),
    (r"^((?:target|device|test) .*?)  .*", r"\1  <ready, or what it needs>"),
    (r"(difference to PyTorch|max diff) [\d.e+-]+", r"\1 <n>"),
    (r", [\d.]+ x the time of fp32 here", ""),  # left out where it is not clear
    (r"  time_over_fp32\b", ""),  # so is its column
    (r"^(  ONNX int8: gate: )(passed|failed)\b", r"\1<passed or failed>"),  # its float layers are chosen by time
    (r"^(\S+@local  .*|baselines  useful)  (yes|no|disturbed)\b", r"\1  <yes or no>"),
    (r"\b\d{5,}( bytes)", r"<n>\1"),
    (r"\b(clearly worse|not clearly better|clearly better)\b", "<better or not>"),
    (r", the hardest to beat of \d+ that held-out images cannot tell apart", ""),
    (r"^verdict: .*", "verdict: <verdict>"),
    (r"^(Pretraining|labels: Pretraining) .*", r"\1 <verdict>"),
    (r"(the|classifier:) (probe|finetune|distill)\b", r"\1 <classifier>"),
    (r"(SVM on (HOG|a colour histogram( and HOG)?)|majority class)", "<cheap classifier>"),
    (r"^\d+  \S+\.png  .*", "<rank>  <image>  <class>"),  # of labels: which images is a matter of accuracy
    (r"\b\d+ of (\d+) labels look wrong", r"<n> of \1 labels look wrong"),
    (r"^.* (yes|no) +calibration by .*", "<candidate>"),
    (r"^(chosen on \d+ images: ).*", r"\1<recommendation>"),
    (r"(\d+(?:\.\d+)?e[-+]\d+|[-+]?\b\d+\.\d+(?:\.\d+)*)", "<n>"),
    (rf"(?<![\w.-])[\d,]+({_UNITS})", r"<n>\1"),
)
_CELL = re.compile(r"[-+]?[\d,]+")


def masked(text: str, folder: Path) -> str:
    """The text with ``<n>`` for numbers that are measured, and columns two blanks apart.

    Repeated lines become one: how many rows a search or a list of doubts has is a matter of accuracy.
    """
    lines: list[str] = []
    for line in text.replace(str(folder), "FOLDER").splitlines():
        if any(re.search(pattern, line) for pattern in _DROPPED):
            continue
        line = re.sub(r"(?<=\S) {2,}", "  ", line)
        if not re.match(r"^\S+  (n\w*|epochs|steps|batch|iterations|images|seeds)  ", line):  # those are counts
            line = _table(line)
        for pattern, instead in _MASKS:
            line = re.sub(pattern, instead, line)
        if not lines or line != lines[-1] or not line:
            lines.append(line)
    return "".join(f"{line}\n" for line in lines)


def _table(line: str) -> str:
    """A row of a table: also its whole numbers may be measured ones."""
    name, *cells = line.split("  ")
    if not name or not cells:  # prose, or a block whose lines are set in
        return line
    return "  ".join([name, *("<n>" if _CELL.fullmatch(cell) else cell for cell in cells)])
