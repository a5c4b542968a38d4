"""The command line: every mistake is one line and exit code 2; help imports nothing heavy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from softedge import config
from softedge.cli import main


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        main(list(arguments))
    captured = capsys.readouterr()
    return left.value.code or 0, captured.out, captured.err


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom softedge.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'timm', 'numpy', 'onnxruntime', 'openvino', 'nncf', 'coremltools', 'sklearn', 'pydantic'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "HEAVY []" in done.stdout
    assert "deploy" in done.stdout


def test_the_ssl_folder_never_shadows_the_standard_library():
    package = Path(__file__).resolve().parents[2] / "softedge"
    assert not (package / "ssl" / "__init__.py").exists()
    code = f"import sys; sys.path.insert(0, {str(package)!r}); import ssl; print(ssl.SSLContext, ssl.__file__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "softedge" not in done.stdout.split("'", 2)[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["recipes", "show", "ligth-moco"], "unknown recipe 'ligth-moco'; did you mean 'light-moco'?"),
        (["deploy", "--data", "nowhere/at/all"], "nowhere/at/all"),
        (["deploy", "--data", "digitz"], "digitz"),
        (["deploy", "--targets", "onyx"], "unknown target 'onyx'; did you mean 'onnx'?"),
        (["deploy", "--precisions", "int4"], "export.precisions"),
        (["deploy", "--set", "ssl.epoch=3"], "did you mean 'ssl.epochs'?"),
        (["deploy", "--recipe", "missing.toml"], "missing.toml"),
        (["deploy", "--devices", "lokal"], "unknown device 'lokal'; did you mean 'local'?"),
        (["probe", "no-run"], "no-run is not a softedge run"),
        (["check", "no-run"], "no-run is not a softedge run"),
        (["report", "no-run"], "no-run is not a softedge run"),
        (["verify", "no-folder"], "no-folder"),
        (["data", "no-folder"], "no-folder"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_two(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, *arguments)
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert out == ""
    assert not list(tmp_path.rglob("result.json"))


def test_an_unknown_flag_is_explained_and_exits_with_two(capsys):
    code, _, err = run(capsys, "deploy", "--datta", "x")
    assert code == 2
    assert "--datta" in err


def test_a_shown_recipe_is_a_recipe(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = run(capsys, "recipes", "show", "light-moco", "--set", "ssl.epochs=7")
    assert code == 0
    Path("mine.toml").write_text(out)
    assert config.load("mine.toml") == config.load("light-moco", ["ssl.epochs=7"])
    assert "epochs = 7  # from --set\n" in out
    assert "alpha = 0.8  # set here\n" in out
    assert 'alpha_schedule = "static"\n' in out  # a default


def test_a_folder_that_is_not_a_run_is_left_alone(capsys, tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    code, _, err = run(capsys, "deploy", "--out", str(tmp_path))
    assert code == 2
    assert "not empty and not a softedge run" in err
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]
