"""report.json's values -> the page. The templates lie beside this file; nothing on the page comes from elsewhere."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup, escape

from softedge.report import charts, facts, phrases, words

Values = dict[str, Any]


def render(report: Values, pictures: dict[tuple[int, str], str]) -> str:
    """The whole page.  pictures: (run number, "test:INDEX" or "check:INDEX") -> data URI."""
    environment = Environment(loader=PackageLoader("softedge.report", "."), autoescape=True, trim_blocks=True)
    environment.filters |= {
        "emphasise": emphasise,
        "artifact": words.artifact_name,
        "series": charts._series,
        "moment": words.moment,
        "chosen": chosen,
        "eight_bit": phrases.is_eight_bit,
        "timed_on": lambda rows, device: [r for r in rows if r["devices"].get(device)],
    }
    environment.tests["eight_bit"] = phrases.is_eight_bit
    runs = report["runs"]
    css = environment.get_template("report.css").render()

    def picture(at: int, key: str, name: str) -> Markup:
        uri = pictures.get((at, key))
        if uri is None:
            return Markup('<p class="none">no picture</p>')
        return Markup('<img class="tiny" src="{}" alt="{}">').format(Markup(uri), name)

    names = dict(
        report=report,
        runs=runs,
        first=runs[0],
        css=Markup(css),
        chart=charts,
        words=words,
        show=SimpleNamespace(**phrases.SHOW),
        picture=picture,
        sections=sections,
        plottable=plottable,
        spread=lambda run, device: [r for r in run["files"] if r["devices"].get(device, {}).get("histogram")],
        shade=shade,
        shade_class=shade_class,
        label_lines=label_lines,
        worst_layers=worst_layers,
        plain=plain,
        all_curves=all_curves,
        file_of=lambda run, name: next((r for r in run["files"] if r["artifact"] == name), {}),
        change_cell=change_cell,
        recipe_text=recipe_text,
        data_facts=facts.data_facts,
        environment_facts=facts.environment_facts,
        hash_chain=facts.hash_chain,
        grouped=facts.grouped,
        layers=facts.layers,
        **{
            name: getattr(phrases, name)
            for name in (
                "about",
                "why_not",
                "missing",
                "files_lead",
                "files_caption",
                "scatter_caption",
                "probe_rows",
                "few_range",
                "learning_lead",
                "curves_note",
                "int8_lead",
                "device_lead",
            )
        },
    )
    return environment.get_template("page.html").render(**names)


def emphasise(sentence: str, artifact: str) -> Markup:
    """The name of the file in bold."""
    name = words.artifact_name(artifact) if artifact else ""
    before, found, after = sentence.partition(name) if name else (sentence, "", "")
    return Markup("{}<strong>{}</strong>{}").format(before, found, after) if found else Markup(escape(sentence))


def chosen(picks: list[Values], device: str) -> str:
    return next((pick["artifact"] for pick in picks if pick["device"] == device), "")


def sections(run: Values) -> list[tuple[str, str]]:
    """Anchors and titles of the sections that are there."""
    found = [("files", "Every file"), ("learning", "What pretraining bought")]
    if any(phrases.is_eight_bit(row["precision"]) for row in run["files"]):
        found.append(("int8", "What int8 costs"))
    found += [("latency", "Latency"), ("images", "Test images"), ("missing", "Failed and not run")]
    return [*found, ("data", "Data"), ("provenance", "Provenance")]


def plottable(run: Values, device: str) -> list[Values]:
    return [r for r in run["files"] if r.get("top1") is not None and r["devices"].get(device, {}).get("p90_ms")]


def shade(value: int, line: list[int]) -> int:
    """How much of the colour a cell of the confusion matrix gets, percent."""
    whole = sum(line)
    return round(12 + 78 * value / whole) if value and whole else 0


def shade_class(row: int, column: int, value: int, line: list[int]) -> str:
    kinds = [] if value else ["empty"]
    if row != column and value:
        kinds.append("wrong")
    if shade(value, line) > 48:
        kinds.append("dark")
    return " ".join(kinds)


def label_lines(run: Values) -> list[tuple[str, list[list[float]]]]:
    """Lines of the label-efficiency chart from the "labels" stage's rows."""
    titles = {"linear_top1": "linear", "random_linear_top1": "linear, random weights", "knn_top1": "k-NN"}
    titles |= {"finetune_top1": "fine-tuned", "supervised_top1": "from scratch"}
    rows = [r for r in (run["labels"].get("rows") or []) if isinstance(r, dict) and words.is_number(r.get("n_labels"))]
    lines = []
    for key, title in titles.items():
        points = [[row["n_labels"], row[key]] for row in rows if words.is_number(row.get(key))]
        if len(points) > 1:
            lines.append((title, sorted(points)))
    return lines


def worst_layers(row: Values, most: int = 15) -> list[tuple[str, float]]:
    items = [(str(i["layer"]), i["sqnr_db"]) for i in row["layers"] if words.is_number(i.get("sqnr_db"))]
    return sorted(items, key=lambda item: item[1])[:most]


def plain(key: str, value: Any) -> Any:
    """A value of a free table: fractions as percent, other numbers short, the rest as it is."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if words.is_number(value):
        fraction = any(word in key for word in ("top1", "agreement", "drop", "ratio"))
        return phrases.SHOW["percent" if fraction else "size" if key.endswith("bytes") else "number"](value)
    return value


def all_curves(runs: list[Values], key: str) -> list[tuple[str, list[list[float]]]]:
    return [(run["name"], run["pretrain"][key]) for run in runs if run["pretrain"].get(key)][:4]


def change_cell(change: Values, key: str) -> Any:
    value = change.get(key)
    if value is None:
        return "" if key == "change" else Markup('<span class="none">absent</span>')
    if not words.is_number(value):
        return value
    kind = change.get("kind", "number")
    if key == "change":
        return phrases.number(value, f"{words.times(value)}" if change.get("ratio") else words.points(value))
    return phrases.SHOW[kind](value)


def recipe_text(recipe: Values) -> str:
    import tomli_w

    return tomli_w.dumps(recipe)
