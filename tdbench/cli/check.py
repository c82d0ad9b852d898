"""`tdbench check`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

from tdbench.base.errors import UserError
from tdbench.base.table import Table
from tdbench.cli.options import plugin_option
from tdbench.cli.printing import format_option, show

if TYPE_CHECKING:
    from tdbench.testing.checks import CheckResult

MAX_TIMEOUT = 86400


@click.command(short_help="Does a searcher or a reduction hold its contract?")
@click.argument("name")
@plugin_option
@click.option("--timeout", type=float, default=120, show_default=True, help="Seconds that one check may take.")
@click.option("--deterministic", is_flag=True, help="Nothing in it is random: all seeds may lead to the same asks.")
@format_option
def check(name: str, plugins: tuple[str, ...], timeout: float, deterministic: bool, form: str) -> None:
    """Run the contract that every searcher holds on NAME (or family:VARIANT), or a reduction's on a reduction.

    Exits with 0 where it holds, 1 where a check fails, and 2 where there is nothing of that name.
    """
    from tdbench.testing.check_run import CheckRun

    if not 0 < timeout <= MAX_TIMEOUT:
        raise UserError(f"timeout must be a number of seconds above 0 and at most {MAX_TIMEOUT}, got {timeout:g}")
    checks = CheckRun(name, plugins, timeout=timeout, deterministic=deterministic)
    shown = _told_at_once(checks, max(map(len, checks.names))) if form == "table" else checks
    records = [_record(result) for result in shown]
    failed, not_run = sum(not record["passed"] for record in records), len(checks.names) - len(records)
    verdict = _verdict(name, len(checks.names), failed, not_run)
    if form == "table":
        click.echo(verdict)
    else:
        rows = tuple(("ok" if r["passed"] else "FAILED", r["check"], r["message"]) for r in records)
        show(form, [Table("", ("", "check", "message"), rows, text=(0, 1, 2))], records, lines=[verdict])
    if failed or not_run:
        raise click.exceptions.Exit(1)


def _told_at_once(results: Iterable[CheckResult], width: int) -> Iterator[CheckResult]:
    """The results, each printed when it comes: a check may take minutes."""
    for result in results:
        click.echo(f"{'ok' if result.passed else 'FAILED':<7} {result.name:<{width}}  {_printable(result.message)}")
        for line in result.details:
            click.echo(f"        {_printable(line)}")
        sys.stdout.flush()
        yield result


def _record(result: CheckResult) -> dict[str, Any]:
    return {
        "check": result.name,
        "passed": result.passed,
        "message": _printable(result.message),
        "details": [_printable(line) for line in result.details],
    }


def _verdict(name: str, count: int, failed: int, not_run: int) -> str:
    if not failed and not not_run:
        return f"{name} holds the contract: all {count} checks passed"
    rest = f", {not_run} were not run" if not_run else ""
    return f"{name} does not hold the contract: {failed} of {count} checks failed{rest}"


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)
