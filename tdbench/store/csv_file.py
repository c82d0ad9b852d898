"""A CSV file that lines are appended to: read with whatever a spreadsheet made of it, never seen with half a line.

A line is written from its second byte on, and its first byte last. Until then it begins with a zero byte, and whoever
reads the file leaves such a line out: a write that is under way, or that a kill has cut off.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tdbench.base.files import whole_file

UNFINISHED = "\0"  # how a line begins that is not yet written; no cell may begin so
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Content:
    """What a CSV file holds.

    Attributes:
        header: the cells of its first line; empty where there is none.
        lines: the cells of the others; blank lines are left out.
        size: bytes up to the end of the last whole line.
        last: the bytes of that line.
        bom, ending: whether it begins with a byte order mark, and how its lines end.
    """

    header: list[str]
    lines: list[list[str]]
    size: int
    last: bytes
    bom: bool = False
    ending: str = "\n"


def read(path: Path) -> Content:
    """The whole content of a file. Raises OSError, or ValueError (UnicodeDecodeError) and csv.Error."""
    data = _without_unfinished(path.read_bytes())
    lines = _parse(data.removeprefix(_BOM))
    header, others = (lines[0], lines[1:]) if lines else ([], [])
    return Content(header, others, len(data), _last_line(data), data.startswith(_BOM), _ending(data))


def read_more(path: Path, before: Content) -> Content | None:
    """What was appended since, its lines alone; None where the file is not what it was with more lines after it."""
    start = before.size - len(before.last)
    with path.open("rb") as file:
        file.seek(start)
        data = file.read()
    if not before.last.endswith(b"\n") or not data.startswith(before.last):
        return None
    data = _without_unfinished(data)
    new = data[len(before.last) :]
    return Content(before.header, _parse(new), start + len(data), _last_line(data), before.bom, before.ending)


def text_of(lines: Sequence[Sequence[str]], ending: str = "\n") -> str:
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator=ending).writerows(lines)
    return out.getvalue()


def append(path: Path, content: Content, cells: Sequence[str]) -> tuple[int, bytes]:
    """Add a line to a file of that content; gives the file's new size and the bytes of the line. Raises OSError."""
    line = text_of([cells], content.ending).encode()
    with _opened(path) as file:
        os.ftruncate(file, content.size)  # what a kill has cut off
        size = content.size
        if not content.last.endswith(b"\n"):
            size += os.pwrite(file, content.ending.encode(), size)
        try:
            _write_all(file, line[1:], size + 1)
            _write_all(file, line[:1], size)
        except BaseException:
            os.ftruncate(file, size)
            raise
    return size + len(line), line


def write(path: Path, content: Content) -> None:
    """Write a file anew, whole or not at all. Raises OSError."""
    text = text_of([content.header, *content.lines], content.ending).encode()
    with whole_file(path) as partial:
        partial.write_bytes(_BOM * content.bom + text)


def _parse(data: bytes) -> list[list[str]]:
    return [cells for cells in csv.reader(io.StringIO(data.decode("utf-8"), newline="")) if cells]


def _without_unfinished(data: bytes) -> bytes:
    start = data.rfind(b"\n" + UNFINISHED.encode()) + 1
    if start and data.find(b"\n", start) in (-1, len(data) - 1):  # at the end; one in the middle is somebody's cell
        return data[:start]
    return data


def _ending(data: bytes) -> str:
    """How the header ends, and so all lines; a line break within a cell may be another one."""
    seen: list[str] = []
    text = io.StringIO(data.removeprefix(_BOM).decode("utf-8"), newline="")
    next(csv.reader(seen.append(line) or line for line in text), None)  # type: ignore[func-returns-value]
    return "\r\n" if seen and seen[-1].endswith("\r\n") else "\n"


def _last_line(data: bytes) -> bytes:
    return data[data.rfind(b"\n", 0, len(data) - 1) + 1 :]


def _write_all(file: int, data: bytes, offset: int) -> None:
    while data:
        written = os.pwrite(file, data, offset)
        data, offset = data[written:], offset + written


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        yield file
    finally:
        os.close(file)
