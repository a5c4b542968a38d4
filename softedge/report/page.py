"""report.json's values -> the page. The templates are beside this file; nothing on the page comes from elsewhere."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from jinja2 import Environment, PackageLoader, Undefined
from markupsafe import Markup, escape

from softedge.report import (
    charts,
    computed,
    curves,
    detectors,
    facts,
    front_chart,
    gains,
    image_map,
    learning_charts,
    limits_chart,
    near_copies,
    phrases,
    prose,
    search_charts,
    timings,
    unlabelled,
    usefulness,
    words,
)

Values = dict[str, Any]


def render(report: Values, pictures: dict[tuple[int, str], str]) -> str:
    """The whole page.  pictures: (run number, "test:INDEX" or "check:INDEX") -> data URI."""
    environment = Environment(loader=PackageLoader("softedge.report", "."), autoescape=True, trim_blocks=True)
    environment.filters |= {
        "emphasise": emphasise,
        "artifact": words.artifact_name,
        "series": charts.series,
        "moment": words.moment,
        "chosen": chosen,
        "with_roles": with_roles,
        "timed_on": lambda rows, device: [r for r in rows if r["devices"].get(device)],
    }
    environment.tests["eight_bit"] = words.is_int8
    runs = report["runs"]
    css = "\n".join(environment.get_template(name).render() for name in ("report.css", "map.css"))

    def picture(at: int, key: str, name: str) -> Markup:
        uri = pictures.get((at, key))
        if uri is None:
            return Markup('<p class="none">no picture</p>')
        return Markup('<img src="{}" alt="{}">').format(Markup(uri), name)

    def drawn_map(at: int, identity: str) -> Markup:
        return image_map.draw(identity, runs[at]["map"], pictures.get((at, "map")))

    names = dict(
        report=report,
        runs=runs,
        first=runs[0],
        css=Markup(css),
        chart=charts,
        learned=learning_charts,
        limits=limits_chart,
        front=front_chart,
        words=words,
        show=SimpleNamespace(**phrases.SHOW),
        picture=picture,
        drawn_map=drawn_map,
        legend=image_map.legend,
        near_kinds=near_copies.KINDS,
        near_splits=near_copies.SPLITS,
        sections=sections,
        plottable=plottable,
        timed_devices=timed_devices,
        spread=lambda run, device: [r for r in run["files"] if r["devices"].get(device, {}).get("histogram")],
        shade=shade,
        shade_class=shade_class,
        label_lines=label_lines,
        label_methods=label_methods,
        by_group=by_group,
        worst_layers=worst_layers,
        layer_name=words.layer_name,
        search=search_charts,
        plain=plain,
        columns=columns,
        all_curves=all_curves,
        training_losses=curves.training_losses,
        file_of=lambda run, name: next((r for r in run["files"] if r["artifact"] == name), {}),
        change_cell=change_cell,
        timings=timings.rows,
        note=computed.note,
        timed_top1=computed.top1,
        untimed_reasons=untimed_reasons,
        compared=compared,
        moved=moved,
        transfer_rows=transfer_rows,
        per_class_rows=per_class_rows,
        detector_rows=detectors.rows,
        recipe_text=recipe_text,
        data_facts=facts.data_facts,
        environment_facts=facts.environment_facts,
        hash_chain=facts.hash_chain,
        grouped=facts.grouped,
        refused=facts.refused,
        pretrained=words.pretrained,
        labels_alone=gains.labels_alone,
        known=gains.known,
        given=words.given,
        classifier_called=words.classifier_called,
        learning_lead=gains.learning_lead,
        worth_it=gains.worth_it,
        cheap_lead=usefulness.cheap_lead,
        layers=facts.layers,
        any_labelled=facts.any_labelled,
        unlabelled=unlabelled.unlabelled,
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
                "curves_note",
                "int8_lead",
                "what_counts",
                "further",
                "device_lead",
            )
        },
    )
    return prose.unbroken(environment.get_template("page.html").render(**names))


ROLES = {
    "<thead": "rowgroup",
    "<tbody": "rowgroup",
    "<tr": "row",
    '<th scope="col"': "columnheader",
    '<th scope="row"': "rowheader",
    "<td": "cell",
}


def with_roles(rows: Markup) -> Markup:
    """The inside of a table with its ARIA roles: a style that is not a table's can take the native ones away."""
    text = str(rows)
    for tag, role in ROLES.items():
        text = text.replace(tag, f'{tag} role="{role}"')
    return Markup(text)


def emphasise(sentence: str, artifact: str) -> Markup:
    """The name of the file in bold."""
    name = words.artifact_name(artifact) if artifact else ""
    before, match, after = sentence.partition(name) if name else (sentence, "", "")
    return Markup("{}<strong>{}</strong>{}").format(before, match, after) if match else Markup(escape(sentence))


def chosen(picks: list[Values], device: str) -> str:
    return next((pick["artifact"] for pick in picks if pick["device"] == device), "")


def sections(run: Values) -> list[tuple[str, str]]:
    """Anchors and titles of the sections that are there."""
    bought = "What pretraining is worth" if words.pretrained(run) else "What the starting weights are worth"
    entries = [("files", "Every file"), *([("learning", bought)] if gains.known(run) else [])]
    if any(words.is_int8(row["precision"]) for row in run["files"]):
        entries.append(("int8", "What int8 costs"))
    entries += [("latency", "Latency"), ("images", "Test images")]
    entries += [("labels", "Labels")] if run["label_issues"] else []
    entries += [("map", "Map of the images")] if run.get("map") else []
    entries += [("missing", "Failed and not run")]
    return [*entries, ("data", "Data"), ("provenance", "Provenance")]


def timed_devices(run: Values) -> list[str]:
    """Devices with at least one latency; an emulated one has answers only."""
    return [d for d in run["devices"] if any(r["devices"].get(d, {}).get("p50_ms") for r in run["files"])]


def untimed_reasons(run: Values, device: str) -> list[str]:
    """Why files that ran on a device have no latency."""
    rows = [row for row in run["files"] if row["devices"].get(device)]
    return list(dict.fromkeys(phrases.missing(row, device) for row in rows if "p90_ms" not in row["devices"][device]))


def plottable(run: Values, device: str) -> list[Values]:
    return [r for r in run["files"] if r.get("top1") is not None and r["devices"].get(device, {}).get("p90_ms")]


def shade(value: int, line: list[int]) -> int:
    """How much of the colour a cell of the confusion matrix gets, percent."""
    whole = sum(line)
    share = value / whole if value and whole else 0.0
    # Nothing between 45 and 85 percent: neither dark nor light text can be read on the tones between.
    return 85 if share >= 0.7 else round(10 + 50 * share) if share else 0


def shade_class(row: int, column: int, value: int, line: list[int]) -> str:
    kinds = [] if value else ["empty"]
    if row != column and value:
        kinds.append("wrong")
    if shade(value, line) > 48:
        kinds.append("dark")
    return " ".join(kinds)


def label_lines(run: Values, method: str) -> list[tuple[str, int, list[list[float]]]]:
    """Lines of the label-efficiency chart of one method: PyTorch accuracy by number of labels, one line per start."""
    starts: dict[str, list[list[float]]] = {}
    for row in run["labels"].get("rows") or []:
        if row.get("method") == method and row.get("file") == "pytorch" and words.is_number(row.get("mean")):
            point = [row["n_labels"], row["mean"], row.get("low", row["mean"]), row.get("high", row["mean"])]
            starts.setdefault(row["init"], []).append(point)
    names = {"ssl": "pretrained", "random": "random weights"}
    colours = {"ssl": 0, "random": 1}
    return [
        (names.get(start, start), colours.get(start, 2 + number % 2), sorted(points))
        for number, (start, points) in enumerate(starts.items())
        if len(points) > 1
    ]


def label_methods(run: Values) -> list[tuple[str, str]]:
    titles = {"finetune": "Fine-tuned", "probe": "A linear layer on frozen features"}
    methods = dict.fromkeys(row.get("method", "") for row in run["labels"].get("rows") or [])
    return [(method, titles.get(method, method)) for method in methods if label_lines(run, method)]


def by_group(changes: list[Values]) -> list[tuple[str, list[Values]]]:
    """Changes under their headings, in the order in which they came."""
    groups: dict[str, list[Values]] = {}
    for change in changes:
        groups.setdefault(change["group"], []).append(change)
    return list(groups.items())


def worst_layers(row: Values, most: int = 15) -> list[tuple[str, float]]:
    """The layers that lose the most when they alone are in int8, worst first."""
    items = [
        (words.layer_name(layer), layer["alone_db"])
        for layer in row["layers"]
        if words.is_number(layer.get("alone_db"))
    ]
    return sorted(items, key=lambda item: item[1])[:most]


STEP_COLUMNS = {
    "agreement": "agreement",
    "sqnr_db": "SQNR, dB",
    "size_bytes": "size",
    "time_over_fp32": "time over fp32",
}


def columns(rows: list[Values]) -> list[tuple[str, str]]:
    """Key and title of the numbers that the steps of an int8 search have."""
    return [(key, title) for key, title in STEP_COLUMNS.items() if any(row.get(key) for row in rows)]


def plain(key: str, value: Any) -> Any:
    """A value of a free table: fractions as percent, other numbers short, the rest as it is."""
    if value is None or isinstance(value, Undefined):
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
        return phrases.number(value, f"× {words.significant(value)}" if change.get("ratio") else words.points(value))
    return phrases.SHOW[kind](value)


COMPARED = (
    ("top1", "top-1", "percent"),
    ("agreement", "agreement", "percent"),
    ("sqnr_db", "SQNR, dB", "plain1"),
    ("size_bytes", "size", "size"),
)


def compared(run: Values) -> list[tuple[str, str, str]]:
    """Key, title and kind of what ``check --against`` compared."""
    return [column for column in COMPARED if any(column[0] in entry for entry in run["check"]["against"])]


def moved(change: float, kind: str) -> Markup:
    """A signed change: points of a percentage, else in the unit of the value."""
    if kind == "percent":
        return phrases.number(change, words.points(change))
    size = phrases.SHOW[kind](abs(change)).striptags()
    return phrases.number(change, ("+" if change > 0 else words.MINUS if change < 0 else "±") + size)


def transfer_rows(run: Values) -> list[tuple[str, list[float | None]]]:
    """Average precisions of the transfer tasks: (measure, one value per task or None)."""
    tables = [entry["metrics"] for entry in run["transfer"].values()]
    keys = dict.fromkeys(key for table in tables for key in table if "AP" in key and words.is_number(table[key]))
    return [(key.replace("_", " "), [table.get(key) for table in tables]) for key in keys]


def per_class_rows(run: Values) -> list[tuple[str, list[float | None]]]:
    """AP50 of every class: (class, one value per task or None)."""
    tables = [entry["AP50_per_class"] for entry in run["transfer"].values()]
    return [
        (name, [table.get(name) for table in tables]) for name in dict.fromkeys(n for table in tables for n in table)
    ]


def recipe_text(recipe: Values) -> str:
    import tomli_w

    return tomli_w.dumps(recipe)
