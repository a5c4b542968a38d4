"""What is in a data set, as values and as text: the command ``softedge data``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softedge.config import Recipe
from softedge.data.near_pairs import sentence, table
from softedge.errors import UserError, quoted
from softedge.progress import on_one_line, plural
from softedge.run import write_text

if TYPE_CHECKING:
    from softedge.data.examining import Examined

_SHOWN = 12


def describe(source: str, recipe: Recipe, pairs: Path | None = None) -> dict[str, Any]:
    """Find, screen and split as a run would. UserError as there, but labels that are too few are a notice.

    pairs: a file for the table of near-duplicates; nothing else is written.
    """
    from softedge.data.examining import examine

    if pairs is not None and pairs.exists():
        raise UserError(f"{pairs} exists; give --pairs another name, or delete it")
    examined = examine(source, recipe, tolerant=True)
    values = facts(examined, recipe)
    if pairs is not None:
        write_text(pairs, table(examined.near))
    return values


def facts(examined: Examined, recipe: Recipe) -> dict[str, Any]:
    """The same of images that were looked at."""
    from softedge.data.examining import input_spec
    from softedge.data.index import summary

    spec = input_spec(examined, recipe)
    return {**examined.counts(), **summary(examined, spec), "n_found": len(examined.inventory), "grey": examined.grey}


def describe_text(values: Mapping[str, Any]) -> str:
    """The result of ``describe`` for a terminal.  planned: a plan is still to choose the input size and the weights."""
    spec = values["spec"]
    if values.get("planned"):
        sizes = [f"  input          chosen by the plan: softedge plan --data {quoted(values['source'])}"]
    else:
        crop = f"shorter side to {spec['resize']}, centre crop of {spec['size']} pixels, {spec['interpolation']}"
        sizes = [f"  input          {crop}", f"  mean, std      {spec['mean']}, {spec['std']}"]
    unlabelled = values["n_pretrain"] - values["n_train"]
    classes = plural(values["n_classes"], "class", "classes")
    lines = [
        f"{values['source']}: {plural(values['n_found'], 'image')}, the largest side is {values['longer_side']} pixels",
        f"  pretraining    {plural(values['n_pretrain'], 'image')}, {unlabelled:,} of them unlabelled",
        f"  training       {plural(values['n_train'], 'labelled image')} in {classes}",
        f"  test           {plural(values['n_test'], 'image')} ({_TEST[values['test_split']]})",
        *sizes,
    ]
    if values["n_duplicates"]:
        copies = plural(values["n_duplicates"], "copy of a test image", "copies of test images")
        lines.append(f"  set aside      {copies}")
    if values["contradictions"]:
        pairs = "; ".join(" and ".join(names[:2]) for names in values["contradictions"][:_SHOWN])
        pictures = plural(len(values["contradictions"]), "picture", "pictures")
        lines.append(f"  set aside      {pictures} with two labels: {pairs}")
    if values["near"]:
        lines.append(f"  look-alikes    {sentence(values['near'])}")
    for why, count in values["ignored"].items():
        lines.append(f"  ignored        {plural(count, _ONE.get(why, why), _MANY.get(why, why))}")
    lines += [f"  note           {notice}" for notice in values["notices"]]
    lines += _class_table(values["per_class"])
    if values["bad"]:
        aside = plural(len(values["bad"]), "image cannot be read and is", "images cannot be read and are")
        lines.append(f"{aside} set aside:")
        lines += [f"  {bad['name']}: {bad['reason']}" for bad in values["bad"][:_SHOWN]]
        if len(values["bad"]) > _SHOWN:
            lines.append(f"  and {len(values['bad']) - _SHOWN} more, all listed in data/index.json of a run")
    return "\n".join(map(on_one_line, lines))


# What an inventory counts by a word or two.
_ONE = {
    "hidden": "hidden file or folder",
    "not images": "file that is not an image",
    "softedge runs": "softedge run",
    "tar files": "tar file",
    "class folders without images": "class folder without images",
    "folders that cannot be read": "folder that cannot be read",
    "links back to a folder above": "link back to a folder above",
    "thumbnails": "thumbnail",
}
_MANY = {"hidden": "hidden files or folders", "not images": "files that are not images"}
_TEST = {
    "given": "as given",
    "held out": "held out by content hash, the same for every run with this seed",
    "none": "there are no labels to test on",
}


def _class_table(per_class: Mapping[str, Mapping[str, int]]) -> list[str]:
    if not per_class:
        return []
    names = list(next(iter(per_class.values())))
    width = min(40, max(len("class"), *(len(name) for name in names)))
    lines = [f"  {'class':<{width}} " + "".join(f"{split:>10}" for split in per_class)]
    for name in names[:_SHOWN] if len(names) > 2 * _SHOWN else names:
        lines.append(f"  {name[:width]:<{width}} " + "".join(f"{counts[name]:>10,}" for counts in per_class.values()))
    if len(names) > 2 * _SHOWN:
        lines.append(f"  ... {plural(len(names) - _SHOWN, 'more class', 'more classes')}")
    return lines
