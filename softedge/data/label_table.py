"""The file ``labels.csv`` as it stands: read with its separator and line ends, changed row by row, written back.

What is not changed stays byte for byte: rows that decide nothing, other columns, the order of the rows.
"""

from __future__ import annotations

import codecs
import csv
import io
import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from softedge.errors import UserError
from softedge.files import read_bytes
from softedge.run import write_text

FILE = "labels.csv"
COLUMNS = ("name", "label", "state", "time")
LABEL = "label"  # the state of an image that has one
_SEPARATORS = ",;\t"
_SHOWN = 60  # characters of a first row that is quoted


class Foreign(UserError):
    """A file of this name with neither of the columns that matter: somebody else's table.

    One of the two may be a mistyped header: decisions that a person has made must not be passed over.
    """


@dataclass(frozen=True)
class Row:
    """line: where it begins, 1 is the first.  text: as it stands, with its line end.  name: the image, as softedge
    has it."""

    line: int
    text: str
    values: tuple[str, ...]
    name: str


@dataclass(frozen=True)
class Table:
    """head: all up to the first row, as it stands.  columns: their names, those of ``COLUMNS`` in small letters."""

    head: str = ",".join(COLUMNS) + "\n"
    columns: tuple[str, ...] = COLUMNS
    rows: tuple[Row, ...] = ()
    separator: str = ","
    end: str = "\n"

    def value(self, row: Row, column: str) -> str:
        """What a row has in a column, "" where there is none."""
        return row.values[self.columns.index(column)].strip() if row.values and column in self.columns else ""

    def rows_of(self, name: str) -> tuple[Row, ...]:
        """The rows about an image."""
        return tuple(row for row in self.rows if row.name == name)

    def decides(self, row: Row) -> bool:
        """Whether a row says anything about its image: others wait for a label."""
        return bool(class_name(self.value(row, "label")) or self.value(row, "state"))

    def text(self) -> str:
        """The whole file."""
        return self.head + "".join(row.text for row in self.rows)

    def decided(self, name: str, state: str, label: str, time: str) -> Table:
        """With a decision about an image: in the rows that had one, else in its first row, else in a new one.

        A table without the columns ``state`` and ``time`` gets them when a state other than "label" needs them.
        """
        table = self if state == LABEL or "state" in self.columns else self._wider()
        there = table.rows_of(name)
        chosen = [row for row in there if table.decides(row)] or there[:1]
        values = {"label": label, "state": state, "time": time}
        if not chosen:
            empty = Row(0, table.end, ("",) * len(table.columns), name)
            return table._appended([table._with(empty, {**values, "name": name})])
        return table.restored(name, [table._with(row, values) if row in chosen else row for row in there])

    def cleared(self, name: str) -> Table:
        """Without the decisions about an image; a row is kept if there is more in it."""
        others = [column for column in self.columns if column not in COLUMNS]
        kept = []
        for row in self.rows_of(name):
            if not self.decides(row):
                kept.append(row)
            elif any(self.value(row, column) for column in others):
                kept.append(self._with(row, {"label": "", "state": "", "time": ""}))
        return self.restored(name, kept)

    def restored(self, name: str, rows: Iterable[Row]) -> Table:
        """With these rows about an image in the place of those that are there."""
        fresh = iter([self._fitted(row) for row in rows])
        kept: list[Row] = []
        for row in self.rows:
            if row.name != name:
                kept.append(row)
            elif (new := next(fresh, None)) is not None:
                kept.append(new)
        return replace(self, rows=tuple(kept))._appended(list(fresh))

    def _appended(self, rows: Sequence[Row]) -> Table:
        if not rows:
            return self
        head, before = self.head, list(self.rows)
        if before:
            before[-1] = replace(before[-1], text=_ended(before[-1].text, self.end))
        return replace(self, head=_ended(head, self.end), rows=(*before, *rows))

    def _with(self, row: Row, values: Mapping[str, str]) -> Row:
        """The row with other values, as far as there are such columns."""
        new = tuple(values.get(column, value) for column, value in zip(self.columns, row.values))
        out = io.StringIO()
        csv.writer(out, delimiter=self.separator, lineterminator="\r\n").writerow(new)  # quotes both in a value
        return replace(row, text=out.getvalue().removesuffix("\r\n") + _end_of(row.text), values=new)

    def _wider(self) -> Table:
        """With the columns that are missing, empty."""
        missing = [column for column in COLUMNS if column not in self.columns]
        head = _widened(self.head, "".join(self.separator + column for column in missing))
        table = replace(self, head=head, columns=(*self.columns, *missing))
        return replace(table, rows=tuple(map(table._fitted, self.rows)))

    def _fitted(self, row: Row) -> Row:
        """The row with empty values for the columns that came since."""
        more = len(self.columns) - len(row.values)
        if more <= 0 or not row.values:
            return row
        return replace(row, text=_widened(row.text, self.separator * more), values=row.values + ("",) * more)


def _end_of(text: str) -> str:
    return text[len(text.rstrip("\r\n")) :]


def _ended(text: str, end: str) -> str:
    return text if _end_of(text) else text + end


def _widened(text: str, more: str) -> str:
    end = _end_of(text)
    return text.removesuffix(end) + more + end


def class_name(text: str) -> str:
    """A class as it is compared: composed letters, no spaces around it."""
    return unicodedata.normalize("NFC", text).strip()


def read(root: Path) -> Table:
    """``labels.csv`` of a folder; an empty table where there is none.

    Read are commas, semicolons and tabs, a first line ``sep=;``, and the columns' names in any case.
    UserError for a file that is no such table, ``Foreign`` where it has other columns.
    """
    path = root / FILE
    try:
        text = _decoded(path, read_bytes(path))
        records = list(_records(text))
        return _table(root, path, text, records)
    except FileNotFoundError:
        return Table()
    except (OSError, csv.Error) as error:
        raise UserError(f"{path} cannot be read ({error}); fix it, or move it away and label again") from error


def is_there(root: Path) -> bool:
    """Whether the folder has such a file, and not somebody else's."""
    try:
        read(root)
    except Foreign:
        return False
    return (root / FILE).is_file()


def _decoded(path: Path, data: bytes) -> str:
    """The text of UTF-8, with its mark if it has one."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in data:
        raise UserError(
            f"{path} cannot be read: it is UTF-16 or no text; save it as UTF-8 (in a spreadsheet: CSV UTF-8)"
        )
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path} cannot be read: line {line} has the byte 0x{data[error.start]:02x}, which is no UTF-8; save it as "
            "UTF-8 (in a spreadsheet: CSV UTF-8)"
        ) from error


def _records(text: str) -> Iterator[tuple[int, str, list[str], str]]:
    """Line, text, values and separator of every record, the first of which names the columns."""
    lines = list(io.StringIO(text, newline=""))
    start, separators = 0, _SEPARATORS
    first = lines[0].lstrip("\ufeff").strip().strip('"').lower() if lines else ""
    if first.startswith("sep=") and len(first) <= 5:  # Excel's; a tab was stripped
        start, separators = 1, first[4:] or "\t"
    while start < len(lines) and not lines[start].strip("\ufeff \t\r\n"):
        start += 1
    if start == len(lines):
        return
    header = lines[start].lstrip("\ufeff")
    best = max(separators, key=lambda separator: len(_known(_split(header, separator)) & {"name", "label"}))
    rest = [header, *lines[start + 1 :]]
    reader = csv.reader(rest, delimiter=best, strict=True, skipinitialspace=True)  # quotes after a space are quotes
    before = 0
    for values in reader:
        yield start + before + 1, "".join(lines[start + before : start + reader.line_num]), values, best
        before = reader.line_num


def _split(line: str, separator: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])
    except csv.Error:
        return []


def _known(columns: Iterable[str]) -> set[str]:
    return {column.strip().lower() for column in columns} & {*COLUMNS}


def _table(root: Path, path: Path, text: str, records: Sequence[tuple[int, str, list[str], str]]) -> Table:
    wanted = (
        "its first row has to name the columns 'name' (the path below this folder) and 'label', separated by commas, "
        "semicolons or tabs"
    )
    if not records:
        raise UserError(f"{path} is empty; {wanted}. Fill it, or remove it")
    _, first, written, separator = records[0]
    columns = tuple(
        column.strip().lower() if column.strip().lower() in COLUMNS else column.strip() for column in written
    )
    for column in COLUMNS:
        if columns.count(column) > 1:
            raise UserError(
                f"{path} has {columns.count(column)} columns '{column}'; rename or remove all but one of them"
            )
    if not {"name", "label"} <= {*columns}:
        shown = first.strip("\ufeff\r\n")
        shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."
        kind = UserError if {"name", "label"} & {*columns} else Foreign
        raise kind(
            f"{path} is no table of labels: it begins with {shown!r}, and {wanted}. Rename the columns, or the "
            "file if it is something else"
        )
    above = (f"{root.as_posix()}/", f"{root.resolve().as_posix()}/", "./")
    rows = []
    for number, raw, values, _ in records[1:]:
        filled = any(values)
        if filled and len(values) != len(columns):
            raise UserError(f"{path}, line {number}: {len(values)} values for {len(columns)} columns; fix the row")
        name = _name(root, above, values[columns.index("name")].strip()) if filled else ""
        rows.append(Row(number, raw, tuple(values) if filled else (), name))
    head = text[: len(text) - sum(len(row.text) for row in rows)]
    return Table(head, columns, tuple(rows), separator, _end_of(first) or "\n")


def _name(root: Path, above: Sequence[str], written: str) -> str:
    """A name as softedge has it, of one that a spreadsheet or a script wrote: with backslashes, or from the root on.

    above: what the root may be called there.
    """
    name = written
    if "\\" in name and not os.path.exists(root / name):
        name = name.replace("\\", "/")
    for prefix in above:
        name = name.removeprefix(prefix)
    return name


def write(root: Path, table: Table) -> None:
    """Write ``labels.csv``: whole or not at all, on the disk when this returns."""
    write_text(root / FILE, table.text())
