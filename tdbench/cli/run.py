"""`tdbench run`, `bench` and `status`."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tdbench.base.errors import UserError, nearest
from tdbench.cli.shared import interruptible, names, numbers, split
from tdbench.engine.protocol import SPLITS
from tdbench.searchers.reduction import full_name
from tdbench.settings import DEFAULT_OUT, Options, RunSettings
from tdbench.space.task_space import NOISE_MODES

if TYPE_CHECKING:
    from tdbench.store.result import Result
    from tdbench.store.rows import Row

F = TypeVar("F", bound=Callable[..., Any])
_RUN = {field.name: field.default for field in dataclasses.fields(RunSettings)}
_OPTIONS = {field.name: field.default for field in dataclasses.fields(Options)}


def _default(name: str) -> dict[str, Any]:
    return {"default": _RUN.get(name, _OPTIONS.get(name)), "show_default": True}


# Options of `run` and `bench`, in the order of the help page.
SHARED: list[Callable[[Any], Any]] = [
    click.option("--classes", callback=names, help="Class names, the first one class A; random ones by default."),
    click.option("--budget", type=int, help="Evaluations in a run.", **_default("budget")),
    click.option("--batch", type=int, help="Labelings asked at a time.", **_default("batch")),
    click.option("--replicates", type=int, help="Trainings per evaluation.", **_default("replicates")),
    click.option("--noise", type=click.Choice(NOISE_MODES), help="Replicates: new each time, or the same ones.",
                 **_default("noise")),
    click.option("--split", type=click.Choice(SPLITS), help="Train/validation split.",
                 **_default("split")),
    click.option("--confirm", type=int, help="Fresh replicates that score the result.", **_default("confirm")),
    click.option("--steps", type=int, help="Adam steps of a training.", **_default("steps")),
    click.option("--lr", type=float, help="Adam's learning rate.", **_default("lr")),
    click.option("--recommend", metavar="searcher|best|race:F",
                 help="What is confirmed: the searcher's own recommendation where it makes one, the best told, or the "
                      "winner of a race of the leading candidates that takes the last fraction F of the budget.",
                 **_default("recommend")),
    click.option("--engine", help="auto, native, batched or reference.", **_default("engine")),
    click.option("--device", help="auto, cpu or cuda.", **_default("device")),
    click.option("--threads", type=int, help="CPU threads of the engine; one per core by default."),
    click.option("--out", type=click.Path(path_type=Path), help="Folder for log, leaderboards and pictures.",
                 **_default("out")),
    click.option("--resume", is_flag=True, help="Go on with what was interrupted."),
    click.option("--again", is_flag=True, help="Run what is finished once more."),
    click.option("--data-dir", type=click.Path(), help="Folder of the CIFAR sets, in torchvision's layout."),
    click.option("--download", is_flag=True, help="Fetch a CIFAR set that is not there."),
    click.option("--plugin", "plugins", multiple=True, metavar="FILE|MODULE", help="Load one more plugin; repeatable."),
    click.option("--ask-timeout", type=float, help="Seconds a searcher may take to answer.", **_default("ask_timeout")),
    click.option("--start-timeout", type=float, help="Seconds it may take to start.", **_default("start_timeout")),
    click.option("--memory-limit", type=int, help="MiB a searcher may take.", **_default("memory_limit")),
    click.option("--workers", type=int, help="Most searchers alive at a time.", **_default("workers")),
]  # fmt: skip


def shared_options(command: F) -> F:
    for option in reversed(SHARED):
        command = option(command)
    return command


@click.command()
@click.option("--searcher", help="As `tdbench searchers` lists it.", **_default("searcher"))
@click.option(
    "--reduction",
    help="Search fewer dimensions, such as ntk:20; as `tdbench searchers` lists them.",
    **_default("reduction"),
)
@click.option("--data", help="digits, cifar10, cifar100 or the path of an .npz.", **_default("data"))
@click.option("--n", type=int, help="Images in the space.", **_default("n"))
@click.option("--ratio", type=int, help="Negatives per positive.", **_default("ratio"))
@click.option("--space-seed", type=int, help="Draws the image set.", **_default("space_seed"))
@click.option("--seed", type=int, help="Of the searcher and its replicates.", **_default("seed"))
@click.option(
    "--threshold",
    metavar="auto|NUMBER",
    help="Say whether what was found counts as a task: whether it confirms above this taskness. auto calibrates it on "
    "random labelings, once for a setting: 2560 trainings at --confirm 32.",
)
@shared_options
def run(**settings: Any) -> None:
    """Search one space with one searcher, and say what was found and how sure that is."""
    from tdbench.api import run as run_search

    with interruptible("--resume"):
        result = run_search(**settings, progress=True)
    _print_result(result)
    if result.row.status != "ok":
        raise click.exceptions.Exit(1)


@click.command()
@click.argument("config", type=click.Path(path_type=Path), required=False)
@click.option("--searchers", callback=names, help="Names separated by commas.")
@click.option("--reductions", callback=names, help="Names separated by commas.", **_default("reduction"))
@click.option("--seeds", type=int, default=10, show_default=True, help="How many run seeds: 0, 1, ...")
@click.option("--space-seeds", callback=numbers, default="0", show_default=True, help="Separated by commas.")
@click.option("--data", callback=names, default="digits", show_default=True, help="Sources separated by commas.")
@click.option("--n", callback=numbers, default="50", show_default=True, help="Images, separated by commas.")
@click.option("--ratio", callback=numbers, default="4", show_default=True, help="Separated by commas.")
@shared_options
@click.pass_context
def bench(context: click.Context, /, config: Path | None, **settings: Any) -> None:
    """Run searchers x reductions x spaces x seeds in lockstep.

    CONFIG is a TOML file with the same words as the options. Options given on the command line override the file.
    Finished runs are kept, interrupted ones need --resume. With identity among the --reductions, searchers that can use
    no other one are run with identity alone.
    """
    from tdbench.api import bench as run_bench

    if config is not None:
        settings.update(_from_toml(config, settings, context))
    if not settings["searchers"]:
        raise UserError("bench needs --searchers NAME,NAME,... or `searchers` in its config file")
    with interruptible("--resume"):
        results = run_bench(**settings, progress=True)
    _print_bench(results, Path(settings["out"]))
    _print_left_out(results, settings["searchers"], settings["reductions"])
    if all(result.row.status != "ok" for result in results):
        raise click.exceptions.Exit(1)


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=DEFAULT_OUT, show_default=True)
def status(out: Path) -> None:
    """What the runs in a results folder have done, are doing, and have left."""
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    from tdbench.store.log import Store

    with Store(out, read_only=True) as store:
        records = store.runs()
        if not records:
            click.echo(f"no run has been begun in {out}")
            return
        whole = Column("searcher", overflow="fold")  # two that differ in their ends must not look the same
        table = Table("space", whole, "seed", "status", "evaluations", "left", "error")
        left_in_all = 0
        for record in records:
            settings = record.settings
            done = store.evaluated(record.id)
            left = 0 if record.ended else settings.budget - done
            left_in_all += left
            state = record.status if record.ended else "running" if store.is_running(record) else "interrupted"
            name = settings.full_name
            cells = (record.space, name, settings.seed, state, done, left, record.error[:60])
            table.add_row(*(Text(str(cell)) for cell in cells))
    Console().print(table)
    ended = sum(record.ended for record in records)
    click.echo(f"{ended} of {len(records)} runs ended, {left_in_all} evaluations left in the runs that have begun")


def _from_toml(path: Path, settings: dict[str, Any], context: click.Context) -> dict[str, Any]:
    """The file's words, checked against the options; what the command line gave explicitly stays."""
    try:
        words = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"the config file {path} cannot be read: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid TOML: {error}") from error
    known = {name.replace("_", "-"): name for name in settings}
    options = {option.name: option for option in context.command.params}
    chosen: dict[str, Any] = {}
    for word, value in words.items():
        name = known.get(word.replace("_", "-"))
        if name is None:
            raise UserError(f"{path}: unknown key {word!r}{nearest(word, known)}")
        if context.get_parameter_source(name) is not click.core.ParameterSource.COMMANDLINE:
            chosen[name] = _checked_word(path, word, value, options[name])
    return chosen


def _checked_word(path: Path, word: str, value: Any, option: click.Parameter) -> Any:
    """A value of the file as its option would give it."""
    kind: type | tuple[type, ...]
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
    if not all(isinstance(v, kind) and (kind is bool or not isinstance(v, bool)) for v in values):
        raise UserError(f"{path}: {word} must be {expected}{' or a list of them' if several else ''}, got {value!r}")
    if isinstance(value, list):
        return tuple(value)
    if option.callback is names:
        return split(value)
    return (value,) if several and option.name != "seeds" else value


def _print_result(result: Result) -> None:
    row = result.row
    if row.status != "ok":
        click.echo(f"{row.searcher}: {row.status} after {row.evaluations} evaluations: {row.error}")
    else:
        click.echo(f"searcher    {row.searcher} on {result.space.name}")
        told = len(result.told)
        click.echo(f"told        {row.told:.3f}   the best the searcher was told in {told} evaluations")
        if row.evaluations > told:
            click.echo(f"race        {row.evaluations - told} more evaluations chose among the leading candidates")
        click.echo(f"confirmed   {row.confirmed:.3f} +- {row.confirmed_se:.3f}   over {row.confirm} fresh replicates")
        click.echo(f"optimism    {row.optimism:.3f}   told - confirmed")
        _print_references(result)
        _print_task(result)
    click.echo(f"leaderboard {result.leaderboard}")
    if result.picture:
        click.echo(f"picture     {result.picture}")
    click.echo(f"log         {result.log}")


def _print_references(result: Result) -> None:
    random = [score.mean for score in result.reference("random")]
    if random:
        mean, worst, best = sum(random) / len(random), min(random), max(random)
        click.echo(f"random      {mean:.3f}   mean of {len(random)} random labelings ({worst:.3f} to {best:.3f})")
    known = sorted(result.reference("class") + result.reference("pixel"), key=lambda score: -score.mean)
    if known:
        kind = {"class": "class task", "pixel": "pixel statistic"}[known[0].task.kind]
        click.echo(f"reference   {known[0].mean:.3f} +- {known[0].se:.3f}   the best: {kind} '{known[0].task.name}'")
        better = [score for score in known if score.mean > result.row.confirmed]
        click.echo(f"            {len(better)} of {len(known)} reference tasks confirm higher than what was found")


def _print_task(result: Result) -> None:
    t_task, confirmed = result.threshold, result.row.confirmed
    if t_task is None:
        return
    where = f"{'yes' if result.is_task else 'no'}: {confirmed:.3f} is {'' if result.is_task else 'not '}above T_task"
    if t_task.n == 0:
        click.echo(f"task?       {where} {t_task.value:.3f}, as given")
        return
    from tdbench.leaderboard.threshold import FALSE_POSITIVE_RATE, LABELINGS, SETS

    close = ", but within its interval" if t_task.low <= confirmed <= t_task.high else ""
    interval = f" [{t_task.low:.3f}, {t_task.high:.3f}]" if t_task.has_interval else ""
    click.echo(f"task?       {where} {t_task.value:.3f}{interval}{close}")
    click.echo(
        f"            {100 * FALSE_POSITIVE_RATE:g} % of {t_task.n} random labelings exceed it, {LABELINGS} of each of "
        f"{SETS} image sets: {t_task.n * result.row.confirm} trainings, kept in {result.log.parent}"
    )


def _print_bench(results: Sequence[Result], out: Path) -> None:
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    from tdbench.cli.tables import number
    from tdbench.leaderboard.standings import space_table

    table = Table("space", Column("searcher", overflow="fold"), "runs", "told", "confirmed", "failed")
    rows: dict[str, list[Row]] = {}
    for result in results:
        rows.setdefault(result.space.name, []).append(result.row)
    for space, of_space in rows.items():
        for standing in space_table(of_space).standings:
            scores = (number(standing.told), number(standing.confirmed.value))
            cells = (space, standing.searcher, len(standing.runs), *scores, standing.failed)
            table.add_row(*(Text(str(cell)) for cell in cells))
    Console().print(table)
    failed = [result.row for result in results if result.row.status != "ok"]
    for row in failed:
        click.echo(f"failed: {row.searcher}, seed {row.seed}: {row.status}: {row.error}")
    click.echo(f"{len(results) - len(failed)} runs ended well, {len(failed)} failed; `tdbench leaderboard --out {out}`")


def _print_left_out(results: Sequence[Result], searchers: Sequence[str], reductions: Sequence[str]) -> None:
    ran = {result.row.searcher for result in results}
    for searcher in searchers:
        if missing := [reduction for reduction in reductions if full_name(searcher, reduction) not in ran]:
            click.echo(f"not run: {searcher} with {', '.join(missing)}, because it can use no reduction")
