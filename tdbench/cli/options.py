"""What several commands share: options with commas, common options, and a Ctrl-C that says how to go on."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from tdbench.base.errors import Stopped, escaped, nearest

F = TypeVar("F", bound=Callable[..., Any])
OUT_OF_TIME = 124  # exit status where --max-seconds ended a command, as that of timeout(1)
PATH: click.Path = click.Path(path_type=Path)


class Named(click.Group):
    """A group that says which of its commands was meant.

    Attributes:
        what: how a message calls them.
    """

    what = "command"

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = self.list_commands(ctx)
        if args and args[0] not in known and not args[0].startswith("-"):
            raise click.UsageError(f"unknown {self.what} {args[0]!r}{nearest(args[0], known)}", ctx)
        return super().resolve_command(ctx, args)


def with_options(options: Sequence[Callable[[Any], Any]]) -> Callable[[F], F]:
    """A decorator for a command that has these options, in the order of its help page."""

    def decorate(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def plugin_option(command: F) -> F:
    """The option ``--plugin``, which may be repeated; the command gets `plugins`."""
    return click.option(
        "--plugin", "plugins", multiple=True, metavar="FILE|MODULE", help="Load one more plugin; repeatable."
    )(command)


def split(value: str) -> tuple[str, ...]:
    """The words of a text with commas."""
    return tuple(part.strip() for part in value.split(",") if part.strip())


def names(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """An option's callback: words separated by commas."""
    return None if value is None else split(value)


def numbers(_context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """An option's callback: whole numbers separated by commas."""
    try:
        return None if value is None else tuple(int(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(
            f"expected whole numbers separated by commas, got {value!r}", param=parameter
        ) from None


@contextlib.contextmanager
def interruptible(resume: str = "") -> Iterator[None]:
    """Ctrl-C ends a command in one line that says how to go on: the same command, with `resume` where it needs that.

    So does its time limit.
    """
    try:
        yield
    except (KeyboardInterrupt, Stopped) as stop:
        words = sys.argv[1:] + ([resume] if resume and resume not in sys.argv else [])
        command = shlex.join(["tdbench", *words])
        click.echo(f"stopped; everything evaluated is kept. Go on with: {escaped(command)}", err=True)
        raise click.exceptions.Exit(OUT_OF_TIME if isinstance(stop, Stopped) else 130) from None
