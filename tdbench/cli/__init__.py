"""The command line: parse, call, print.

A command imports what it does its work with only when it is called: torch, scipy and matplotlib take 1 to 2 seconds
each, and a help page or a misspelled option should not wait for them.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
from typing import NoReturn

try:
    import click

    from tdbench.base.errors import UserError, cut, on_command_line, printable
    from tdbench.cli.options import Named
except KeyboardInterrupt:  # Ctrl-C while Python starts
    sys.stderr.write("error: stopped\n")
    raise SystemExit(130) from None

LONGEST_ERROR = 1000  # characters

# In the order of the help page. Each is defined under its name, with _ for -, in the module of that name.
COMMANDS = (
    *("run", "discover", "bench", "merge", "status", "leaderboard", "compare", "export", "report", "study"),
    *("tasks", "transfer"),
    *("searchers", "check", "new-searcher", "new-reduction", "new-key", "doctor", "worker", "perf"),
)


class Commands(Named):
    """A group that imports a command's module when the command is named."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        name = cmd_name.replace("-", "_")
        command: click.Command = getattr(importlib.import_module(f"tdbench.cli.{name}"), name)
        return command


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tdbench")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def tdbench(debug: bool) -> None:
    """A benchmark of black-box optimizers on task discovery: labelings on which a small network generalizes."""


def main(args: list[str] | None = None) -> NoReturn:
    """The entry point: an error meant for people is one line and exit status 2, Ctrl-C is 130."""
    with on_command_line():
        _main(args)


def _main(args: list[str] | None) -> NoReturn:
    try:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # what a terminal cannot show is escaped
                stream.reconfigure(errors="backslashreplace")
        arguments = (sys.argv[1:] if args is None else args) or ["--help"]
        code = tdbench.main(arguments, prog_name="tdbench", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.ClickException as error:
        _complain(error.format_message())
        sys.exit(error.exit_code)
    except BrokenPipeError:  # the reader of the output has gone, as `| head` does
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - nothing is left to be flushed at exit
        sys.exit(1)
    # Wrong input; a full or vanished disk; a machine too small; a value too large or nested too deeply.
    except (UserError, OSError, MemoryError, OverflowError, RecursionError) as error:
        if "--debug" in arguments:
            raise
        _complain(f"there is not enough memory: {error}" if isinstance(error, MemoryError) else str(error))
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        _complain("stopped")
        sys.exit(130)


def _complain(message: str) -> None:
    # Not with click.echo, which writes UTF-8 where the terminal says that it knows ASCII only.
    print("error: " + cut(printable(message), LONGEST_ERROR), file=sys.stderr, flush=True)
