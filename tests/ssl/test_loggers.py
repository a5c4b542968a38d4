import sys
import types

import pytest
from small import recipe

from softedge.errors import UserError
from softedge.ssl.journal import Journal
from softedge.ssl.loggers import open_all


def test_a_missing_package_is_named_with_the_command_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"ssl.log = 'wandb' needs wandb; install it with: pip install wandb"):
        open_all(["wandb"], tmp_path, recipe())


def test_every_number_of_the_journal_reaches_the_logger_with_its_step(tmp_path, monkeypatch):
    seen, started = [], []
    double = types.SimpleNamespace(
        util=types.SimpleNamespace(generate_id=lambda: "abc"),
        init=lambda **settings: started.append(settings),
        log=lambda numbers, step: seen.append((step, numbers)),
    )
    monkeypatch.setitem(sys.modules, "wandb", double)
    journal = Journal(tmp_path / "metrics.jsonl")
    journal.others = open_all(["wandb"], tmp_path, recipe())
    journal.write({"step": 3, "loss": 1.5, "note": "text"})
    assert seen == [(3, {"loss": 1.5})]
    open_all(["wandb"], tmp_path, recipe())
    assert started[0]["id"] == started[1]["id"] == "abc"  # a resumed run goes on in the same one


def test_the_journal_forgets_what_comes_after_the_checkpoint_and_half_written_lines(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 3, "loss": 1.0}\n{"step": 6, "loss": 0.5}\n{"step": 9, "lo')
    journal = Journal(path)
    journal.keep_until(3)
    assert [entry["step"] for entry in journal.entries] == [3]
    assert path.read_text() == '{"step": 3, "loss": 1.0}\n'
    journal.warn("careful")
    again = Journal(path)
    again.keep_until(3)
    assert again.warnings == ["careful"]
    assert [entry["step"] for entry in again.entries] == [3]


def test_numbers_that_are_not_finite_become_null(tmp_path):
    journal = Journal(tmp_path / "metrics.jsonl")
    journal.write({"step": 1, "loss": float("nan")})
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1, "loss": null}\n'
