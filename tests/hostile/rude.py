"""What the hostile tests share: a command line in a process and an empty folder of its own, and what it leaves behind.

The rude plugins are copied beside that folder, so that they can note what they find in ``notes`` beside them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
import uuid
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from helpers import CHEAP, ROOT, as_options, command, environment, table

FIXTURES = ROOT / "tests" / "fixtures" / "rude"
FAMILIES = tuple(path.stem for path in sorted(FIXTURES.glob("*.py")))
DECENT = ("random", "umda", "twopointsde")
OUT = "results"
CHEAPEST = {**CHEAP, "budget": 20}
TIMES = ("--ask-timeout", "6", "--start-timeout", "20", "--memory-limit", "1500", "--workers", "200")
SOON = ("--ask-timeout", "3", "--start-timeout", "8")  # where few processes run side by side
MARK = "RUDE_TEST"  # in the environment of a command and of all that it starts
LONGEST_ERROR = 500


@dataclass(frozen=True)
class Done:
    """A command that has ended.

    Attributes:
        folder: has ``work``, its working directory, ``tmp``, its folder for temporary files, and ``plugins``.
        code: its exit status; None where it did not end in time and was killed.
        left: the processes that it left behind, a line each. They are gone now.
    """

    folder: Path
    code: int | None
    left: tuple[str, ...]

    @cached_property
    def out(self) -> str:
        return (self.folder / "stdout").read_bytes().decode()

    @cached_property
    def err(self) -> str:
        return (self.folder / "stderr").read_bytes().decode()

    @property
    def lines(self) -> list[str]:
        return [*self.out.split("\n"), *self.err.split("\n")]

    @property
    def results(self) -> Path:
        return self.folder / "work" / OUT

    @cached_property
    def rows(self) -> dict[str, dict[str, str]]:
        """Its leaderboard rows by searcher, without clocks."""
        return {row["searcher"]: row for row in table(self.results)}

    @property
    def strewn(self) -> list[str]:
        """Files that it wrote outside of its results, and litter in them."""
        work, temporary = self.folder / "work", self.folder / "tmp"
        found = [path for place in (work, temporary) for path in place.rglob("*")]
        return [str(path) for path in found if self.results not in (path, *path.parents) or "litter" in path.name]


class Running:
    """A command line in a process and a folder of its own, with marked descendants."""

    def __init__(self, folder: Path, *arguments: object, **variables: str) -> None:
        self.folder = folder
        for name in ("work", "tmp"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        copy_plugins(folder)
        self._mark = f"{MARK}={uuid.uuid4().hex}"
        marked = {MARK: self._mark.partition("=")[2], "TMPDIR": str(folder / "tmp"), **variables}
        with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
            self.process = subprocess.Popen(
                command(*arguments),
                cwd=folder / "work",
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env={**environment(), **marked},
                start_new_session=True,
            )

    def wait(self, timeout: float) -> Done:
        """Its end; it is killed with all its descendants where it does not end in time."""
        try:
            code: int | None = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            code = None
            self.process.kill()
            self.process.wait()
        return Done(self.folder, code, self.left())

    def kill(self) -> Done:
        """SIGKILL to the process alone."""
        self.process.kill()
        self.process.wait()
        return Done(self.folder, None, self.left())

    def left(self, patience: float = 10) -> tuple[str, ...]:
        """Descendants that are alive `patience` seconds later; they are killed then."""
        deadline = time.monotonic() + patience
        while (found := {**self._marked(), **self._noted()}) and time.monotonic() < deadline:
            time.sleep(0.1)
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return tuple(f"{pid} {what}" for pid, what in found.items())

    def _marked(self) -> dict[int, str]:
        """Processes whose environment has the mark."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if self._mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                    command_line = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
                    found[int(folder.name)] = command_line.decode(errors="replace")[:200]
        return found

    def _noted(self) -> dict[int, str]:
        """Processes that plugins noted, whatever has become of their environment."""
        found = {}
        for path in (self.folder / "plugins" / "notes").glob("[0-9]*"):
            pid, _, started = path.read_text().partition(" ")
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                if fields[0] not in "ZX" and fields[19] == started:
                    found[int(pid)] = "noted by a plugin"
        return found


def tdbench(folder: Path, *arguments: object, timeout: float = 60, **variables: str) -> Done:
    """`tdbench ARGUMENTS` to its end."""
    return Running(folder, *arguments, **variables).wait(timeout)


def copy_plugins(folder: Path) -> None:
    if not (folder / "plugins").exists():
        shutil.copytree(FIXTURES, folder / "plugins", ignore=shutil.ignore_patterns("__pycache__", "notes"))
        (folder / "plugins" / "notes").mkdir()


def bench_arguments(folder: Path, searchers: list[str], *extra: object, **settings: object) -> list[str]:
    """A cheap bench with all families of rude plugins."""
    plugins = [part for family in FAMILIES for part in ("--plugin", str(folder / "plugins" / f"{family}.py"))]
    options = as_options({**CHEAPEST, "seeds": 1, "out": OUT, **settings})
    return ["bench", "--searchers", ",".join(searchers), *options, *TIMES, *plugins, *map(str, extra)]


def bench(folder: Path, searchers: list[str], *extra: object, timeout: float = 110, **settings: object) -> Done:
    return tdbench(folder, *bench_arguments(folder, searchers, *extra, **settings), timeout=timeout)


def check_end(row: dict[str, str], statuses: str) -> None:
    """The run has one of these statuses, and an error that can be shown where it failed."""
    assert row["status"] in statuses.split("|"), row["error"][:1000]
    if row["status"] == "ok":
        assert row["error"] == ""
    else:
        assert row["error"].strip()
        assert row["error"].isprintable()
        assert len(row["error"]) <= LONGEST_ERROR


def check_printed(done: Done) -> None:
    """It has printed text for people: no control characters, no traceback, and not much of it."""
    assert [ascii(line[:300]) for line in done.lines if not line.isprintable()] == []
    assert "Traceback" not in done.err
    assert len(done.out) + len(done.err) < 200_000
