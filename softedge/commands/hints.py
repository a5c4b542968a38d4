"""What a command line that cannot be parsed was meant to say: names of commands from other tools, options left out."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from softedge.errors import quoted

_CLASSIFY = "python RUN/export/onnx-int8/snippets/run.py photo.jpg classifies photos; softedge try RUN, live on a phone"
_TRAIN = (
    "softedge deploy --data PHOTOS trains, exports and checks; softedge pretrain and softedge finetune are parts of it"
)
_MEASURE = "the exported files: softedge check RUN; the frozen features: softedge probe RUN"
_TIME = "softedge bench RUN measures latency"
_EXPORT = "a run: softedge export RUN; weights from elsewhere: softedge export-file WEIGHTS --images PHOTOS"
_LABEL = "softedge review PHOTOS labels in the browser; softedge label-next PHOTOS says which images are worth it"
_DEVICES = "softedge doctor shows formats and devices that work here; softedge bench RUN --devices ... times on them"
_REPORT = "softedge report RUN writes RUN/report.html; softedge deploy goes on with a run"

# Commands that softedge has under another name, by the name that other tools have given them.
ELSEWHERE = {
    **dict.fromkeys(("predict", "classify", "infer", "inference", "run", "recognize", "recognise"), _CLASSIFY),
    **dict.fromkeys(("train", "fit", "build", "start", "resume"), _TRAIN),
    **dict.fromkeys(("eval", "evaluate", "validate", "test", "score", "accuracy"), _MEASURE),
    **dict.fromkeys(("benchmark", "profile", "time", "latency", "measure"), _TIME),
    **dict.fromkeys(("convert", "compile"), _EXPORT),
    **dict.fromkeys(("label", "annotate", "tag"), _LABEL),
    **dict.fromkeys(("quantise", "quantization", "quantisation", "ptq"), "softedge quantize RUN"),
    **dict.fromkeys(("serve", "demo", "live", "camera", "app"), "softedge try RUN shows a file live on a phone"),
    **dict.fromkeys(("dedup", "duplicates"), "softedge data PHOTOS --pairs FILE.csv writes pairs of near-duplicates"),
    **dict.fromkeys(("inspect", "info", "split", "dataset"), "softedge data PHOTOS shows what a folder holds"),
    **dict.fromkeys(("embed", "features"), "softedge export RUN --output features"),
    **dict.fromkeys(("detect", "detector"), "softedge transfer RUN --task voc --data VOC trains a detector"),
    **dict.fromkeys(("config", "configs", "models"), "softedge recipes list, softedge recipes show NAME"),
    **dict.fromkeys(("devices", "device", "targets", "formats"), _DEVICES),
    **dict.fromkeys(("compare", "diff"), "softedge report RUN RUN shows runs side by side, --compare what changed"),
    **dict.fromkeys(("status", "summary", "show", "open", "metrics", "results"), _REPORT),
    **dict.fromkeys(("help", "commands"), "the option -h lists the commands; softedge deploy -h explains one"),
    **dict.fromkeys(("version",), "the option --version"),
    **dict.fromkeys(("install", "init", "env"), "softedge doctor shows what is missing; softedge setup FORMAT"),
}


def add(error: Any, arguments: Sequence[str]) -> None:
    """Put what was meant into the message of a usage error, where that is known."""
    if hint := option(error, arguments):
        error.message, error.possibilities = ". ".join(filter(None, [error.message.rstrip("."), hint])), None


def option(error: Any, arguments: Sequence[str]) -> str:
    """What was meant by a line that the parser refuses; "" where nothing is known.

    The folder of images is an option of some commands (``deploy --data photos/``) and an argument of others
    (``review photos/``), and a run is always an argument: each is understood where the other was given.
    """
    context = getattr(error, "ctx", None)
    if context is None or context.info_name not in arguments:
        return ""
    words = list(arguments[arguments.index(context.info_name) + 1 :])
    known = {name for parameter in context.command.params for name in parameter.opts}
    asked = getattr(error, "option_name", "")
    if asked in ("--data", "--run") and asked not in known:
        return _instead(context, asked, _value(asked, words), known)
    missing = getattr(error, "param", None)
    if "--data" not in known or _value("--data", words) or (missing and "--data" not in missing.opts) or asked:
        return ""
    try:
        _, left, _ = context.command.make_parser(context).parse_args(args=words)
    except type(error):  # something else is wrong, too
        return ""
    return f"Did you mean --data {quoted(left[0])}?" if left else ""


def _value(option: str, words: Sequence[str]) -> str:
    """What follows ``option``, or is joined to it by "="; "" where it is not there."""
    joined = [word.partition("=")[2] for word in words if word.startswith(f"{option}=")]
    return next(iter([*joined, *(after for word, after in itertools.pairwise(words) if word == option)]), "")


def _instead(context: Any, asked: str, value: str, known: set[str]) -> str:
    if asked == "--data" and "--images" in known:
        return f"Did you mean --images {quoted(value or 'PHOTOS')}?"
    taken = [parameter.name for parameter in context.command.params if parameter.param_type_name == "argument"]
    if not taken or taken[0] not in ("run", "runs", "data", "source"):
        return ""
    command = f"softedge {context.info_name}"
    if asked == "--data" and taken[0] in ("run", "runs"):
        made = f"softedge deploy --data {quoted(value or 'PHOTOS')}"
        return f"It works on a run: {command} RUN. To make one: {made}"
    return f"Did you mean: {command} {quoted(value or ('RUN' if asked == '--run' else 'PHOTOS'))}"
