"""`tdbench bench`."""

from __future__ import annotations

import re
import reprlib
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tdbench.base.errors import UserError, escaped, nearest
from tdbench.cli.options import PATH, interruptible, names, numbers, split
from tdbench.cli.printing import format_option, show
from tdbench.cli.run_options import default, discovery_options, shared_options
from tdbench.cluster.spec import Cluster
from tdbench.searchers.reduction import full_name

if TYPE_CHECKING:
    from tdbench.store.rows import Row


_GREATEST_NUMBER = 2**63


@click.command(short_help="Run many searchers on many spaces, in lockstep")
@click.argument("config", type=PATH, required=False)
@click.option("--searchers", callback=names, help="Names separated by commas.")
@click.option("--reductions", callback=names, help="Names separated by commas.", **default("reduction"))
@click.option("--seeds", type=int, default=10, show_default=True, help="How many run seeds: 0, 1, ...")
@click.option("--space-seeds", callback=numbers, default="0", show_default=True, help="Separated by commas.")
@click.option("--data", callback=names, default="digits", show_default=True, help="Sources separated by commas.")
@click.option("--n", callback=numbers, default="50", show_default=True, help="Images, separated by commas.")
@click.option("--ratio", callback=numbers, default="4", show_default=True, help="Separated by commas.")
@click.option(
    "--tasks",
    callback=numbers,
    default="0",
    show_default=True,
    help="Labelings to discover in a run, separated by commas; 0 recommends one.",
)
@click.option("--shard", metavar="I/K", help="Run part I of K alone, counted from 1; `tdbench merge` joins the parts.")
@discovery_options
@shared_options
@format_option
@click.pass_context
def bench(context: click.Context, /, config: Path | None, form: str, **settings: Any) -> None:
    """Run searchers x reductions x spaces x tasks x seeds in lockstep.

    CONFIG is a TOML file with the same words as the options. Options given on the command line override the file.
    Finished runs are kept, interrupted ones need --resume. With identity among the --reductions, searchers that can use
    no other one are run with identity alone.
    """
    from tdbench.api import bench as run_bench
    from tdbench.leaderboard.boards import group_rows
    from tdbench.leaderboard.records import bench_records
    from tdbench.leaderboard.standings import space_table
    from tdbench.leaderboard.summary import replaced_rows
    from tdbench.leaderboard.tables import bench_table

    if config is not None:
        settings.update(_from_toml(config, settings, context))
    if not settings["searchers"]:
        raise UserError("bench needs --searchers NAME,NAME,... or `searchers` in its config file")
    with interruptible("--resume"):
        results = run_bench(**settings, progress=True)
    for line in replaced_rows(results):
        print(escaped(line), file=sys.stderr)
    rows = [result.row for result in results]
    tables = [space_table(group) for group in group_rows(rows).values()]
    lines = list(_ended(rows, settings["out"]))
    if settings["shard"] is None:  # a shard does not have every searcher
        lines += _left_out(rows, settings["searchers"], settings["reductions"])
    show(form, [bench_table(tables)] if rows else [], bench_records(tables), lines=lines)
    if rows and all(row.status != "ok" for row in rows):
        raise click.exceptions.Exit(1)


def _from_toml(path: Path, settings: dict[str, Any], context: click.Context) -> dict[str, Any]:
    """The file's words, checked against the options; what the command line gave explicitly stays."""
    words = _parsed_toml(path)
    known = {name.replace("_", "-"): name for name in settings}
    options = {option.name: option for option in context.command.params}
    chosen: dict[str, Any] = {}
    for word, value in words.items():
        name = known.get(word.replace("_", "-"))
        if name is None:
            raise UserError(f"{path}: unknown key {word!r}{nearest(word, known)}")
        if name == "cluster" and isinstance(value, dict):
            value = Cluster.of(value)
        if context.get_parameter_source(name) is not click.core.ParameterSource.COMMANDLINE:
            chosen[name] = _checked_word(path, word, value, options[name])
    return chosen


def _parsed_toml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        return tomllib.loads(text)
    except OSError as error:
        raise UserError(f"the config file {path} cannot be read: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid TOML: {error}") from error
    except RecursionError:
        raise UserError(f"{path} is nested too deeply; a config file has no tables in tables") from None
    except ValueError:  # a number of more digits than Python reads
        found = re.search(r"^[ \t]*([^=\n]*?)[ \t]*=[^\n]*?[0-9_]{4000}", text, flags=re.MULTILINE)
        key = found[1] if found else "a value"
        raise UserError(f"{path}: {key} has too many digits; whole numbers are below {_GREATEST_NUMBER}") from None


def _checked_word(path: Path, word: str, value: Any, option: click.Parameter) -> Any:
    """A value of the file as its option would give it."""
    kind: type | tuple[type, ...]
    if isinstance(value, Cluster):
        return value
    if isinstance(option.type, click.types.BoolParamType):
        kind, expected = bool, "true or false"
    elif isinstance(option.type, click.types.IntParamType) or option.callback is numbers:
        kind, expected = int, "a whole number"
    elif isinstance(option.type, click.types.FloatParamType):
        kind, expected = (int, float), "a number"
    else:
        kind, expected = str, "a string"
    several = option.multiple or option.callback in (names, numbers) or option.name == "seeds"
    values = value if several and isinstance(value, list) else [value]
    if any(isinstance(v, int) and abs(v) >= _GREATEST_NUMBER for v in values):
        raise UserError(f"{path}: {word} is too large; whole numbers are below {_GREATEST_NUMBER}")
    if not all(isinstance(v, kind) and (kind is bool or not isinstance(v, bool)) for v in values):
        given = reprlib.repr(value)
        raise UserError(f"{path}: {word} must be {expected}{' or a list of them' if several else ''}, got {given}")
    if isinstance(value, list):
        return tuple(value)
    if option.callback is names:
        return split(value)
    return (value,) if several and option.name != "seeds" else value


def _ended(rows: Sequence[Row], out: str | Path) -> Iterator[str]:
    failed = [row for row in rows if row.status != "ok"]
    for row in failed:
        yield f"failed: {row.searcher}, seed {row.seed}: {row.status}: {row.error}"
    yield f"{len(rows) - len(failed)} runs ended well, {len(failed)} failed; `tdbench leaderboard --out {out}`"


def _left_out(rows: Sequence[Row], searchers: Sequence[str], reductions: Sequence[str]) -> Iterator[str]:
    ran = {row.searcher for row in rows}
    for searcher in searchers:
        if missing := [reduction for reduction in reductions if full_name(searcher, reduction) not in ran]:
            yield f"not run: {searcher} with {', '.join(missing)}, because it can use no reduction"
