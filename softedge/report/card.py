"""MODEL_CARD.md in the Hugging Face format: YAML front matter that the hub reads, then what a user must know."""

from __future__ import annotations

import json
import re
from typing import Any

from softedge.report import computed, facts, gains, phrases, trained, unlabelled, usefulness, words

Values = dict[str, Any]


def card(run: Values) -> str:
    """The model card of one collected run (an entry of report.json's ``runs``)."""
    from jinja2 import Environment, PackageLoader

    environment = Environment(
        loader=PackageLoader("softedge.report", "."),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_on_one_line,
    )
    environment.filters["literal"] = literal
    return environment.get_template("model_card.md").render(
        run=run,
        front=_Markdown(front_matter(run)),
        pick=run["verdict"]["picks"][0],
        words=words,
        about=phrases.about(run),
        made=[row for row in run["files"] if row.get("size_bytes")],
        facts=[(name, _plain(value)) for name, value in facts.data_facts(run)],
        origin=trained.origin(run),
        pretrained=words.pretrained(run),
        known=gains.known(run),
        cheap=_plain(usefulness.cheap_lead(run)) if run["baselines"] else "",
        labels_alone=_plain(gains.labels_alone(run)) if run.get("scratch") else "",
        judged=unlabelled.judged(run),
        unlabelled=unlabelled.lead(run),
        timed=any(timing.get("p50_ms") for row in run["files"] for timing in row["devices"].values()),
        probes=phrases.probe_rows(run) if run["probe"] else [],
        missing=facts.grouped([e for e in run["not_run"] if e["why"] != unlabelled.NO_LABELS], run["devices"]),
        outputs=_outputs(run),
        name=words.artifact_name,
        note=computed.note,
        interpreted=phrases.interpreted(run["files"]),
    )


def _outputs(run: Values) -> str:
    """What the files return: "`probabilities`: float32"; files in integers alone return other numbers."""
    found: dict[str, list[str]] = {}
    for row in run["files"]:
        if row.get("size_bytes"):
            name, _, dtype = row.get("output", "probabilities: float32").partition(": ")
            found.setdefault(f"`{name}`: {dtype}", []).append(words.artifact_name(row["artifact"]))
    first, *others = found or ["`probabilities`: float32"]
    return "; ".join([first, *(f"of {words.listing(found[other])} {other}" for other in others)])


def front_matter(run: Values) -> str:
    """YAML between the dashes; strings are written as JSON, which YAML reads as it is."""
    recipe = run["recipe"]
    backbone = trained.taught_network(run).get("name") or recipe.get("backbone", {}).get("name", "")
    task = "image-classification" if run["data"].get("classes") or not run["data"] else "image-feature-extraction"
    lines = ["---", "library_name: softedge", f"pipeline_tag: {task}", "tags:"]
    learned = ["self-supervised-learning", recipe.get("ssl", {}).get("method", "")]
    tags = [*(learned if words.pretrained(run) else []), backbone]
    tags += sorted({row["target"] for row in run["files"] if row.get("size_bytes")})
    lines += [f"- {json.dumps(tag)}" for tag in tags if tag]
    results = [row for row in run["files"] if row.get("top1") is not None]
    if results:
        lines += ["metrics:", "- accuracy", "model-index:", f"- name: {json.dumps(run['name'])}", "  results:"]
    for row in results:
        dataset = phrases._source_name(str(run["data"].get("source") or "test"))
        lines += [
            "  - task:",
            "      type: image-classification",
            "    dataset:",
            f"      name: {json.dumps(dataset)}",
            f"      type: {json.dumps(dataset)}",
            "      split: test",
            "    metrics:",
            "    - type: accuracy",
            f"      name: {json.dumps('top-1, ' + words.artifact_name(row['artifact']))}",
            f"      value: {row['top1']!r}",
        ]
    return "\n".join([*lines, "---"])


class _Markdown(str):
    """Text that goes into the card as it is."""


def _on_one_line(value: Any) -> Any:
    """What a user has named breaks no line or table of the card, and is no HTML."""
    if not isinstance(value, str) or isinstance(value, _Markdown):
        return value
    return re.sub(r"(?<!\\)([<|])", r"\\\1", " ".join(re.split(r"[\r\n]+", value)))


def literal(text: str) -> str:
    """A name without any meaning in Markdown: ``*`` or ``[`` in it are shown as they are."""
    marked = re.sub(r"([\\`*\[\]{}<>|~&#!$])", r"\\\1", " ".join(text.split()))
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", marked)  # within a word it emphasises nothing


def _plain(value: Any) -> str:
    """Text without the page's markup."""
    return value.striptags() if hasattr(value, "striptags") else str(value)
