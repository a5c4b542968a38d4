"""Environments that formats need: ``softedge setup`` lists them and makes one, whoever the format is from."""

from __future__ import annotations

from pathlib import Path

import pytest
from toy_format import Toy

from softedge import registry
from softedge.cli import main
from softedge.errors import UserError
from softedge.export.base import Environment
from softedge.stages import setup as stage


class Walled(Toy):
    """The toy format, as if its converter could not stand beside softedge's packages."""

    name = "walled"
    title = "Walled toy"
    folder: Path

    def environment(self) -> Environment:
        return Environment(self.folder, "about 2 GB", (self.folder / "complete").exists(), self.make)

    def missing(self) -> str | None:
        return None if self.environment().complete else "make it with: softedge setup walled"

    def make(self) -> None:
        self.folder.mkdir()
        (self.folder / "complete").touch()


@pytest.fixture
def walled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(Walled, "folder", tmp_path / "place", raising=False)
    monkeypatch.setitem(registry.FORMATS, "walled", f"{__name__}:Walled")
    return tmp_path / "place"


def test_a_format_of_another_package_has_its_environment_made_once(walled: Path, capsys: pytest.CaptureFixture) -> None:
    assert "walled  not made yet (about 2 GB); make it with: softedge setup walled" in stage.text().splitlines()
    line = f"Walled toy's environment is ready in {walled}; export with: softedge export RUN --targets walled"
    assert stage.setup("walled") == line and Walled().missing() is None
    assert f"making Walled toy's environment in {walled} (about 2 GB" in capsys.readouterr().err
    assert f"walled  ready in {walled}" in stage.text().splitlines()
    assert stage.setup("walled") == line and not capsys.readouterr().err, "it would not make the folder twice"


def test_the_name_that_the_command_once_had_still_works(walled: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["walled-setup"])
    assert not ended.value.code and f"ready in {walled}" in capsys.readouterr().out


def test_a_format_without_an_environment_is_one_line_that_names_those_with_one(walled: Path) -> None:
    with pytest.raises(UserError, match="ONNX needs no environment of its own; formats that need one: .*walled"):
        stage.setup("onnx")


def test_a_format_that_another_package_breaks_takes_no_row_from_the_others(
    walled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry.FORMATS, "torn", "no_such_module:Thing")
    assert "torn" not in stage.text() and "walled" in stage.text()
