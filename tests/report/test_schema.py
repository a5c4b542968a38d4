from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest
import synthetic_run
from pydantic import BaseModel, ValidationError

import softedge.report
from softedge.report import report, schema
from softedge.run import Run

# Measured by stages that the made-up run does not imitate.
ELSEWHERE = {"distance", "knn_overlap", "p99_abs_diff", "superseded_by", "pictures_missing", "effective_rank_curve"}
ELSEWHERE |= {"sqnr_level", "softedge.report.schema.Report", "softedge check --against"}
ELSEWHERE |= {"before_val_top1", "after_val_top1", "n_val"}  # of a run that trains on from given weights
ELSEWHERE |= {"damaged"}  # of a run that no longer is as its stages left it


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """report.json of two runs side by side, with every optional stage."""
    folder = tmp_path_factory.mktemp("schema")
    one = synthetic_run.make(folder / "one", devices=("local", "ssh_pi_board"), extras=True)
    report([one, synthetic_run.make(folder / "two", seed=1)])
    return json.loads((one.root / "report.json").read_text())


def documented() -> set[str]:
    text = (Path(softedge.report.__file__).parent / "schema.md").read_text()
    return set(re.findall(r"`([^`]+)`", text))


def models(kind: Any) -> set[type[BaseModel]]:
    """The models that a type is made of."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {kind}.union(*(models(field.annotation) for field in kind.model_fields.values()))
    return set().union(*(models(part) for part in get_args(kind)))


def keys(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value).union(*(keys(part) for part in value.values()))
    return set().union(*(keys(part) for part in value)) if isinstance(value, list) else set()


def test_what_is_written_is_what_the_schema_says(rich: dict[str, Any], tmp_path: Path) -> None:
    schema.Report.model_validate_json(json.dumps(rich))
    (tmp_path / "bare").mkdir()
    report([Run(tmp_path / "bare")])
    schema.Report.model_validate_json((tmp_path / "bare" / "report.json").read_text())


def test_a_key_that_the_schema_does_not_know_is_refused(rich: dict[str, Any]) -> None:
    changed = json.loads(json.dumps(rich))
    changed["runs"][0]["files"][0]["p90"] = 1.0
    with pytest.raises(ValidationError, match=r"runs\.0\.files\.0\.p90"):
        schema.Report.model_validate(changed)


def test_every_key_of_the_schema_is_documented() -> None:
    fields = {field.alias or name for model in models(schema.Report) for name, field in model.model_fields.items()}
    assert len(fields) > 90
    assert fields <= documented()


def test_nothing_is_documented_that_is_never_written(rich: dict[str, Any]) -> None:
    assert documented() - keys(rich) == ELSEWHERE


def test_numbers_have_the_units_that_are_documented(rich: dict[str, Any]) -> None:
    """Accuracies are fractions, also where a stage wrote them in its own words."""
    for key in ("metrics", "gains"):
        assert all(-1 <= value <= 1 for name, value in rich["runs"][0]["probe"][key].items() if "top" in name)
