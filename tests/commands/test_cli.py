"""The command line: every mistake is one line and exit code 2; help imports nothing heavy."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from softedge import config, registry
from softedge.cli import main
from softedge.commands import hints


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


_ALL_HELP = """
import contextlib, io, json, sys, typer
from softedge.cli import app, main
def helped(*words):
    with contextlib.redirect_stdout(io.StringIO()) as text:
        try: main([*words, '--help'])
        except SystemExit as left: assert not left.code
    return text.getvalue()
def walk(command, *words):
    found = {' '.join(words): {'help': helped(*words), 'options': sorted(
        name for p in command.params for name in p.opts if name.startswith('--') and name != '--help')}}
    for name, inner in getattr(command, 'commands', {}).items():
        found |= walk(inner, *words, name)
    return found
print(json.dumps({'commands': walk(typer.main.get_command(app)), 'modules': sorted(sys.modules)}))
"""


@pytest.fixture(scope="module")
def helped() -> dict[str, Any]:
    environment = {**os.environ, "TERMINAL_WIDTH": "100", "NO_COLOR": "1"}
    done = subprocess.run([sys.executable, "-c", _ALL_HELP], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_help_of_every_command_is_short_and_needs_no_torch(helped):
    assert not {"torch", "timm", "onnxruntime", "openvino", "nncf", "coremltools", "sklearn"} & set(helped["modules"])
    for name, command in helped["commands"].items():
        assert 4 < len(command["help"].splitlines()) <= (45 if name else 60), name
        assert "softedge" in command["help"].lower() or "Usage" in command["help"], name


def test_the_commands_and_their_options_are_those_that_are_written_down(helped):
    """options.txt is what users rely on: change it with the command line, on purpose."""
    lines = [f"{name or 'softedge'}: {' '.join(c['options'])}".rstrip() for name, c in helped["commands"].items()]
    assert lines == (Path(__file__).parent / "options.txt").read_text().splitlines()


@pytest.mark.parametrize("words", [["deploy", "--device", "a:b"], ["plan", "--data", ".", "--devices=a:b"]])
def test_device_and_devices_are_both_understood(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(words)
    assert "unknown device 'a'" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["deploy", "export", "export-file"])
def test_the_help_names_every_format_and_precision_and_what_is_the_default(helped, command):
    words = " ".join(helped["commands"][command]["help"].replace("│", " ").split())
    formats, export = [*registry.formats()], config.Export()
    for default, every in (
        (export.targets, [format_.name for format_ in formats if format_.name in registry.FORMATS.own]),
        (export.precisions, [name for format_ in formats for name in format_.precisions]),
    ):
        named = re.search(rf"Default: {','.join(default)}; more: ([^.]+)\.", words)
        assert named is not None and {*default, *re.findall(r"[\w-]+", named[1])} == {*every}


def test_limits_that_plan_and_limits_that_judge_are_told_apart(helped):
    words = " ".join(helped["commands"]["deploy"]["help"].replace("│", " ").split())
    for option, kind in {"max-ms": "Plan", "max-mb": "Plan", "max-p90": "Gate", "max-size": "Gate"}.items():
        assert re.search(rf"--{option} <[^>]+> (\[\S+\] )?{kind}: ", words), option


def test_a_section_in_brackets_survives_in_a_help_text(helped):
    assert "[transfer] section" in helped["commands"]["transfer"]["help"]


def test_version_and_short_help(capsys):
    import softedge

    assert run(capsys, "--version")[:2] == (0, f"softedge {softedge.__version__}\n")
    assert run(capsys, "-h")[1] == run(capsys, "--help")[1]
    assert run(capsys, "probe", "-h")[1] == run(capsys, "probe", "--help")[1]


def test_a_shell_completes_commands():
    program = "import sys; sys.argv[0] = 'softedge'; from softedge.cli import main; main()"
    asked = {"_SOFTEDGE_COMPLETE": "complete_bash", "COMP_WORDS": "softedge dep", "COMP_CWORD": "1"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env={**os.environ, **asked})
    assert done.returncode == 0 and done.stdout.split() == ["deploy"], done.stderr


def test_what_the_tables_say_of_things_not_run_they_say_once():
    from softedge.commands import tables
    from softedge.records import Result

    skipped = {"latency": "not run: no clock", "top1": "failed: x"}
    result = Result("bench/onnx-fp32@local", "run", {}, {}, {}, {}, "", 0.0, {}, skipped)
    lines = [*tables.stages([result]).splitlines(), *tables.stage(result).splitlines()]
    assert lines == [
        "not run: onnx-fp32@local: no clock",
        "not run: onnx-fp32@local: failed: x",
        "bench/onnx-fp32@local  not run: latency (no clock)",
        "bench/onnx-fp32@local  not run: top1 (failed: x)",
    ]


def test_the_tables_of_labels_say_what_was_found_and_on_which_features():
    from softedge.commands import tables
    from softedge.records import Result

    issue = {"rank": 1, "name": "a/1.jpg", "label": "a", "suggested": "b", "probability": 0.034, "split": "test"}
    details = {"features": "a network", "issues": [issue | {"suggested_probability": 0.9}]}
    metrics = {"n_issues": 3, "n_labelled": 2390, "cv_top1": 0.8412}
    found = Result("label_issues", "run", metrics, {}, {}, {}, "", 0.0, details, {"class c": "a single picture"})
    assert tables.label_issues(found).splitlines() == [
        "   image    label  looks like  split",
        "1  a/1.jpg  a 3 %  b 90 %      test",
        "",
        "3 of 2,390 labels look wrong to a classifier trained without them",
        "it agrees with 84.1 % of all labels; features: a network",
        "shown: the worst 1 of 3; all are in label_issues/wrong_labels.csv of the run",
        "not judged: class c (a single picture)",
    ]
    del details["issues"][0]["split"]  # of an earlier version
    assert "1  a/1.jpg  a 3 %  b 90 %" in tables.label_issues(found).splitlines()
    images = [{"rank": 1, "name": "1.jpg", "suggested": ""}, {"rank": 2, "name": "22.jpg", "suggested": "b"}]
    metrics = {"n_next": 2, "n_unlabelled": 1200, "n_labelled": 0}
    details = {"features": "a network", "reason": "because", "images": images}
    chosen = Result("label_next", "run", metrics, {}, {}, {}, "", 0.0, details)
    assert tables.label_next(chosen).splitlines() == [
        "   image   looks like",
        "1  1.jpg   -",
        "2  22.jpg  b",
        "",
        "2 of 1,200 unlabelled images: because",
        "features: a network",
    ]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_command_says_so_in_one_line(number, code):
    program = (
        "import os, time\nfrom softedge.stages import doctor\nfrom softedge.cli import main\n"
        f"doctor.text = lambda: (os.kill(os.getpid(), {int(number)}), time.sleep(30))\nmain(['doctor'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr == "stopped: what was finished is kept; run the same command again to go on\n"


def test_a_bug_is_one_line_and_its_traceback_a_file(capsys, tmp_path, monkeypatch):
    from softedge.stages import doctor

    def broken() -> str:
        raise ZeroDivisionError("a bug\nof two lines")

    monkeypatch.setattr(doctor, "text", broken)
    monkeypatch.setenv("SOFTEDGE_CACHE", str(tmp_path / "cache"))
    for _ in range(2):
        code, out, err = run(capsys, "doctor")
        assert (code, out, err.count("\n")) == (70, "", 1)
        assert err.startswith("error: unexpected ZeroDivisionError: a bug of two lines; please report it")
    (written,) = set((tmp_path / "cache" / "tracebacks").iterdir()) & {Path(word) for word in err.split()}
    assert written.read_text().rstrip().endswith("ZeroDivisionError: a bug\nof two lines")
    assert "in broken" in written.read_text()
    for arguments in (["doctor", "--traceback"], ["--traceback", "doctor"]):
        with pytest.raises(ZeroDivisionError):
            main(arguments)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SOFTEDGE_CACHE", str(tmp_path / "file"))  # nowhere to write it to
    code, _, err = run(capsys, "doctor")
    assert code == 70 and "in broken" in err


def test_a_folder_where_a_file_should_be_is_no_bug(capsys, tmp_path, monkeypatch):
    from softedge.files import write_text
    from softedge.stages import doctor

    monkeypatch.setattr(doctor, "text", lambda: write_text(tmp_path, "x"))
    line = f"error: {tmp_path} cannot be read or written (Is a directory); move it away, or use another name\n"
    assert run(capsys, "doctor") == (2, "", line)
    monkeypatch.setattr(doctor, "text", lambda: (tmp_path / ("x" * 300)).read_text())
    code, _, err = run(capsys, "doctor")
    assert code == 2 and "x cannot be read or written (File name too long); move it away" in err


def test_only_the_newest_tracebacks_are_kept(tmp_path):
    from softedge.errors import bug_line

    for number in range(12):
        (tmp_path / f"2020-01-01-0000{number:02d}-1.txt").write_text("")
    assert str(tmp_path) in bug_line(ValueError(), "softedge", tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) == 10 and names[0] == "2020-01-01-000003-1.txt" and not names[-1].startswith("2020-01-01")


def test_a_forked_worker_dies_of_sigterm_as_if_nobody_listened():
    from softedge.errors import terminating

    with terminating():
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM


def loader_process() -> int:
    from softedge.errors import leave_signals

    child = os.fork()
    if child == 0:
        try:
            leave_signals(0)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(60)
        finally:
            os._exit(7)
    time.sleep(0.3)
    return child


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="the sender of a signal cannot be told here")
def test_a_loader_process_outlives_one_sigterm_from_elsewhere():
    child = loader_process()
    for state in (0, child):
        subprocess.run(["kill", "-TERM", str(child)], check=True)  # from another process than the parent
        time.sleep(0.3)
        ended, status = os.waitpid(child, os.WNOHANG)
        assert ended == state
    assert os.waitstatus_to_exitcode(status) == 128 + signal.SIGTERM


def test_a_loader_process_ends_when_its_training_says_so():
    child = loader_process()
    os.kill(child, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) in (0, -signal.SIGTERM)  # the latter without sigwaitinfo


def test_the_ssl_folder_never_shadows_the_standard_library():
    package = Path(__file__).resolve().parents[2] / "softedge"
    assert not (package / "ssl" / "__init__.py").exists()
    code = f"import sys; sys.path.insert(0, {str(package)!r}); import ssl; print(ssl.SSLContext, ssl.__file__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "softedge" not in done.stdout.split("'", 2)[2]


def test_a_folder_that_holds_the_clone_does_not_hide_the_package(tmp_path):
    """``cd parent; python -c "import softedge"``, where parent/softedge is the clone that was installed from."""
    root, clone, site = Path(__file__).resolve().parents[2], tmp_path / "softedge", tmp_path / "site"
    site.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "softedge/__init__.py", "softedge/ssl/losses.py"):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / name, clone / name)
    (clone / "softedge" / "files.py").write_text("def compiler_caches(): return {}")
    build = f"from setuptools import build_meta; build_meta.build_editable({str(site)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=clone, check=True, capture_output=True)
    with zipfile.ZipFile(next(site.glob("*.whl"))) as wheel:
        wheel.extractall(site)
    code = (  # without this environment's own installation, which may be an editable one, too
        f"import site; site.addsitedir({str(site)!r}); import softedge, softedge.ssl;"
        "print(softedge.__version__, softedge.__file__, *softedge.ssl.__path__)"
    )
    done = subprocess.run([sys.executable, "-ES", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    package = clone / "softedge"
    assert done.stdout.split()[1:] == [str(package / "__init__.py"), str(package / "ssl")], done.stderr


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("deploy photos/", "(photos/). Did you mean --data photos/?"),
        ("deploy --minutes 5 photos/", "Did you mean --data photos/?"),
        ("pretrain photos/ --out x", "Did you mean --data photos/?"),
        ("plan photos/", "Missing option '--data'. Did you mean --data photos/?"),
        ("recipes suggest photos/", "Did you mean --data photos/?"),
        ("review --data photos/", "No such option: --data. Did you mean: softedge review photos/"),
        ("label-next --data=photos/", "Did you mean: softedge label-next photos/"),
        ("probe --data photos/", "softedge probe RUN. To make one: softedge deploy --data photos/"),
        ("check --run runs/x", "Did you mean: softedge check runs/x"),
        ("export-file w --data photos/", "Did you mean --images photos/?"),
        ("predict photo.jpg", "python RUN/export/onnx-int8/snippets/run.py photo.jpg"),
        ("classify", "softedge try RUN"),
        ("train photos/", "softedge deploy --data PHOTOS"),
        ("quantise", "softedge quantize RUN"),
        ("deploi", "Did you mean 'deploy'?"),
    ],
)
def test_a_line_that_cannot_be_parsed_is_answered_with_what_was_meant(capsys, line, hint):
    code, out, err = run(capsys, *line.split())
    assert (code, out) == (2, "") and hint in err


def test_a_folder_that_the_shell_would_split_is_quoted_in_what_was_meant(capsys):
    for words in (
        ("plan", "my photos/"),
        ("review", "--data", "my photos/"),
        ("export-file", "w", "--data=my photos/"),
    ):
        code, _, err = run(capsys, *words)
        assert code == 2 and "'my photos/'" in " ".join(err.split())


@pytest.mark.parametrize(
    "line",
    ["deploy --data a b", "plan --minutes", "transfer . voc", "deploy photos/ --datta x", "verify --data photos/"],
)
def test_a_folder_is_not_guessed_where_something_else_is_wrong(capsys, line):
    code, _, err = run(capsys, *line.split())
    assert code == 2 and "--data b?" not in err and "--data photos/" not in err and "mean --data voc" not in err


@pytest.mark.parametrize(
    ("word", "said"),
    [("devices", "softedge doctor"), ("compare", "softedge report RUN RUN"), ("version", "--version"), ("help", "-h")],
)
def test_a_word_that_is_no_command_leads_to_the_one_that_does_it(capsys, word, said):
    code, _, err = run(capsys, word)
    assert code == 2 and f"No such command '{word}'. Instead: " in err and said in err and "Did you mean" not in err


def test_the_commands_that_stand_in_for_unknown_ones_are_there(helped):
    commands = helped["commands"]
    for word, hint in hints.ELSEWHERE.items():
        assert word not in commands
        for name in re.findall(r"softedge ((?:recipes )?[a-z-]+)", hint):
            assert name in commands, hint


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
        (["deploy", "--devices", "pi@board"], "unknown device 'pi@board'; did you mean 'ssh://pi@board'?"),
        (["deploy", "--devices", "pi@board:2222"], "did you mean 'ssh://pi@board:2222'?"),
        (["deploy", "--recipe", " "], "the name of the recipe is empty"),
        (["probe", "no-run"], "no-run is not a softedge run"),
        (["quantize", "mistyped.onnx"], "mistyped.onnx is not there"),
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


def test_a_reader_that_has_gone_is_no_gate_that_failed():
    """The parser turns it into exit code 1, which says that a gate failed: softedge check RUN | head -1."""
    read, write = os.pipe()
    os.close(read)
    code = "from softedge.cli import main; main(['recipes', 'list'])"
    done = subprocess.run([sys.executable, "-u", "-c", code], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_an_error_that_cannot_be_shown_keeps_its_exit_code():
    code = "from softedge.cli import main; main(['report', 'nowhere'])"
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", code], stderr=full, stdout=subprocess.DEVNULL)
    assert done.returncode == 2
