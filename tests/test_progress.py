"""What goes to the terminal: names of files are shown, and do nothing to it."""

from __future__ import annotations

import io
import os
import time
from pathlib import Path

import pytest
from pictures import class_folders

from softedge import progress
from softedge.cli import main
from softedge.commands import tables
from softedge.export.quiet import quiet
from softedge.progress import on_one_line, say


@pytest.mark.parametrize("text", ["a b", "größe", "猫", "क्‍ष", "👩‍🔬", "a\u00a0b", ""])
def test_ordinary_text_of_any_language_is_shown_as_it_is(text: str) -> None:
    assert on_one_line(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb\tc\r", r"a\nb\tc\r"),
        ("\x1b[31mred\x1b]0;title\x07", r"\x1b[31mred\x1b]0;title\x07"),
        ("photo\u202egpj.exe", r"photo\u202egpj.exe"),  # what follows would be written from right to left
        ("\udcff.jpg", r"\xff.jpg"),  # a byte that is not UTF-8
        ("\x9b2J\u2028", r"\x9b2J\u2028"),
    ],
)
def test_what_would_move_the_cursor_or_change_colours_is_shown_as_an_escape(text: str, shown: str) -> None:
    assert on_one_line(text) == shown


def test_lines_errors_and_tables_are_shown_that_way(capsys: pytest.CaptureFixture[str]) -> None:
    say("reading \x1b[2J\n.jpg")
    with pytest.raises(SystemExit) as left:
        main(["verify", "no\x1b[31m\nfolder"])
    assert left.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == r"reading \x1b[2J\n.jpg"
    assert len(lines) == 2 and r"no\x1b[31m\nfolder" in lines[1]
    assert tables.table([{"file": "a\nb"}]) == "file\na\\nb"


def test_a_table_of_data_shows_odd_names_of_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class_folders(tmp_path, {"cat": 6, "dog": 6})
    (tmp_path / "cat" / "bad\x1b[31m\n.png").write_bytes(b"x")
    (tmp_path / "dog" / os.fsdecode(b"\xff.png")).write_bytes(b"x")
    with pytest.raises(SystemExit) as left:
        main(["data", str(tmp_path)])
    captured = capsys.readouterr()
    assert left.value.code == 0, captured.err
    assert "\x1b" not in captured.out + captured.err
    assert r"cat/bad\x1b[31m\n.png: not an image in a known format" in captured.out
    assert r"dog/\xff.png" in captured.out


def test_what_goes_on_counts_what_was_done_before(capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setattr(progress, "_PLAIN_EVERY_SECONDS", -1.0)
    assert list(progress.track("ab", "steps", 5, before=3)) == ["a", "b"]
    assert capsys.readouterr().err.splitlines() == ["steps: 4/5", "steps: 5/5"]


def test_the_bar_stays_on_its_terminal_while_other_libraries_are_kept_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for name in ("TERM", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.stderr", Terminal())
    for _ in progress.track(range(2), "calibrating"):
        with quiet() as said:
            time.sleep(0.3)  # the bar is drawn ten times a second
        assert said.getvalue() == ""
