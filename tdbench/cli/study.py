"""`tdbench study NAME`: the studies, each with its own settings as options, and `study all`."""

from __future__ import annotations

import contextlib
import dataclasses
import typing
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tdbench.base.errors import UserError, printable
from tdbench.cli.options import PATH, Named, interruptible, names, numbers
from tdbench.settings import Options

if TYPE_CHECKING:
    from tdbench.studies import Study

DEFAULT_OUT = Path("tdbench-studies")
_COMMON: list[click.Parameter] = [
    click.Option(["--quick"], is_flag=True, help="Smaller sizes: a look at the study in a minute or so."),
    click.Option(["--out"], type=PATH, default=DEFAULT_OUT, show_default=True,
                 help="Folder for CSV, figure, text and memory; a second call goes on where one stopped."),
    click.Option(["--engine"], default="auto", show_default=True, help="auto, native, cuda, batched or reference."),
    click.Option(["--device"], default="auto", show_default=True, help="auto, cpu or cuda."),
    click.Option(["--threads"], type=int, help="CPU threads of the engine; one per core by default."),
    click.Option(["--cluster"], metavar="local:N|ADDRESS", envvar="DASK_SCHEDULER_ADDRESS", show_envvar=True,
                 help="Train on N worker processes of this machine, or on the workers of a Dask scheduler."),
    click.Option(["--data-dir"], type=click.Path(), help="Folder of the CIFAR sets, in torchvision's layout."),
    click.Option(["--plugin", "plugins"], multiple=True, metavar="FILE|MODULE",
                 help="Load one more plugin, for studies that make runs; repeatable."),
    click.Option(["--download"], is_flag=True, help="Fetch a CIFAR set that is not there."),
]  # fmt: skip


class Studies(Named):
    """A group whose commands are made from the studies' settings."""

    what = "study"

    def list_commands(self, ctx: click.Context) -> list[str]:
        from tdbench.studies import NAMES

        return [*NAMES, "all"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        from tdbench.studies import NAMES, load_study

        if cmd_name == "all":
            return _all_command()
        return _study_command(load_study(cmd_name)) if cmd_name in NAMES else None


@click.command(cls=Studies, no_args_is_help=True, short_help="Experiments on what makes a labeling a task")
def study() -> None:
    """What makes a labeling a task: the experiments that calibrate what a search finds.

    Each writes NAME.csv, NAME.png and NAME.md. Default sizes are those of the definitions, section 7; `--quick` makes
    them small.
    """


def _study_command(study: Study) -> click.Command:
    def callback(**given: Any) -> None:
        _run([study], given)

    return click.Command(study.name, params=[*_options(study), *_COMMON], callback=callback, help=study.help)


def _all_command() -> click.Command:
    """The settings that several studies have, and the common options."""
    from tdbench.studies import NAMES, load_study

    studies = [load_study(name) for name in NAMES]
    options = {option.name: option for study in reversed(studies) for option in _options(study)}
    shared = [options[name] for name in ("data", "sets", "replicates", "seed", "steps", "lr")]
    return click.Command(
        "all", params=[*shared, *_COMMON], callback=lambda **given: _run(studies, given), help="Every study in turn."
    )


def _options(study: Study) -> list[click.Option]:
    hints = typing.get_type_hints(study.settings)
    return [_option(field, hints[field.name]) for field in dataclasses.fields(study.settings)]


def _option(field: dataclasses.Field[Any], hint: Any) -> click.Option:
    flag = f"--{field.name.replace('_', '-')}"
    kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)] if _is_optional(hint) else [hint]
    kind, default = kinds[0], typing.cast(Any, field.default)
    extra: dict[str, Any] = {"help": field.metadata["help"], "default": default, "show_default": default is not None}
    if kind is bool:
        return click.Option([flag], is_flag=True, help=extra["help"])
    if typing.get_origin(kind) is tuple:
        callback: Callable[..., Any] = numbers if typing.get_args(kind)[0] is int else names
        text = None if default is None else ",".join(map(str, default))
        return click.Option([flag], callback=callback, **{**extra, "default": text})
    return click.Option([flag], type=kind, **extra)


def _is_optional(hint: Any) -> bool:
    return type(None) in typing.get_args(hint)


def _run(studies: list[Study], given: dict[str, Any]) -> None:
    """Run studies in turn. One that cannot be run with these settings does not keep the others from it."""
    from tdbench.cluster import chosen_engine, open_clusters
    from tdbench.studies import write_findings
    from tdbench.studies._lab import Lab

    context = click.get_current_context()
    explicit = {
        name: value
        for name, value in given.items()
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    }
    options = Options(
        **{name: given[name] for name in ("out", "data_dir", "download", "threads", "cluster", "plugins")},
        progress=True,
    )
    failed = []
    with interruptible(), open_clusters(), contextlib.ExitStack() as stack:
        engine = chosen_engine(given["engine"], given["device"], options.threads, options.cluster)
        lab = stack.enter_context(Lab(options, engine))
        for study in studies:
            try:
                findings = study.run(_settings(study, given["quick"], explicit), lab)
            except UserError as error:
                if len(studies) == 1:
                    raise
                failed.append(study.name)
                click.echo(f"{study.name}: not run: {printable(str(error))}", err=True)
                continue
            table, picture, _ = write_findings(study.name, findings, options.folder)
            click.echo(f"{study.name}: {findings.paragraph}\ntable   {table}\nfigure  {picture}\n")
    if failed:
        raise UserError(f"{len(failed)} of {len(studies)} studies were not run: {', '.join(failed)}")


def _settings(study: Study, quick: bool, explicit: dict[str, Any]) -> Any:
    fields = {field.name for field in dataclasses.fields(study.settings)}
    chosen = {name: value for name, value in explicit.items() if name in fields}
    return study.settings(**{**(study.quick if quick else {}), **chosen})
