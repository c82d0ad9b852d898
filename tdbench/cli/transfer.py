"""`tdbench transfer`: what found tasks are good for."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click

from tdbench.base.errors import escaped
from tdbench.cli.options import PATH, interruptible, names, numbers, with_options
from tdbench.cli.printing import format_option, show
from tdbench.cli.run_options import common
from tdbench.space.settings import SPACE_COLUMNS
from tdbench.transfers.settings import TransferSettings

DEFAULT_OUT = Path("tdbench-results/transfer")
_DEFAULTS = {field.name: field.default for field in dataclasses.fields(TransferSettings)}


def _setting(name: str, help: str, **more: Any) -> Any:
    default = _DEFAULTS[name]
    joined = ",".join(map(str, default)) if isinstance(default, tuple) else default
    return click.option(
        f"--{name.replace('_', '-')}", default=joined, show_default=default is not None, help=help, **more
    )


_SETTINGS = [
    _setting("modes", "fine-tune trains all layers on the target, frozen keeps the convolutions.", callback=names),
    _setting("replicates", "Trainings of each pair, each with a pretrained network of its own.", type=int),
    _setting("pretrain_steps", "Adam steps on a source; those of its space by default.", type=int),
    _setting("members", "Best tasks of the library that are sources by themselves; all by default.", type=int),
    _setting("controls", "Class tasks, pixel statistics and random labelings, so many of each.", type=int),
    _setting("extend", "Images to which found tasks are extended by votes, as further sources.", type=int),
    _setting("sets", "Target sets of class tasks; intervals are over sets.", type=int),
    _setting("target_n", "Images in a target set.", type=int),
    _setting("target_ratio", "Negatives per positive in it.", type=int),
    _setting("seed", "Draws the replicates and the target sets.", type=int),
    _setting("shots", "Positives in training that are tried besides all of them.", callback=numbers),
]
_SPACE = [common(name) for name in ("data", "n", "ratio", "space_seed", "classes", "steps", "lr")]
_TRAINING = [common(name) for name in ("data_dir", "download", "engine", "device", "threads", "cluster")]


@click.command(short_help="Measure what found tasks are good for")
@click.option("--library", type=PATH, metavar="FILE.npz", help="Found tasks; without it there are only the controls.")
@click.option("--targets", default="classes", show_default=True, metavar="classes|FILE.npz",
              help="Class tasks of new image sets, or the tasks of another library.")  # fmt: skip
@with_options(_SETTINGS)
@with_options(_SPACE)
@with_options(_TRAINING)
@click.option("--out", type=PATH, default=DEFAULT_OUT, show_default=True,
              help="Folder for tables, figures and memory; a second call goes on where one stopped.")  # fmt: skip
@format_option
@click.pass_context
def transfer(context: click.Context, /, out: Path, form: str, **given: Any) -> None:
    """What found tasks are good for: train on a task first, then on another one, and compare with no such start.

    Sources are the tasks of a library, all of them at once, and always the controls: class tasks, pixel statistics
    and random labelings of the same images. Targets have images that no source has seen. The options from --n to --lr
    are for an image set without a library.
    """
    from tdbench.api import transfer as run_transfer
    from tdbench.base.files import check_target
    from tdbench.report.transfer import write_result
    from tdbench.transfers.result import FILE_NAME
    from tdbench.transfers.words import contrast_table, document, gain_table, paragraph, taxonomy_table

    check_target(out / FILE_NAME)
    explicit = {
        name: value
        for name, value in given.items()
        if name not in SPACE_COLUMNS or context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    }
    with interruptible():
        result = run_transfer(**explicit, out=out, progress=True)
    tables = [gain_table(result), contrast_table(result)]
    tables += [table for mode in result.modes if (table := taxonomy_table(result, mode)) is not None]
    show(form, tables, result.records(), document=document(result), lines=[paragraph(result)])
    for path in write_result(result, out):
        click.echo(f"wrote {escaped(str(path))}", err=True)
