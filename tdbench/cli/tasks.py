"""`tdbench tasks`: what can be done with found tasks, and with labelings that somebody else made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tdbench.base.errors import escaped
from tdbench.cli.options import PATH, Named, with_options
from tdbench.cli.printing import format_option, show
from tdbench.cli.run_options import common, default
from tdbench.settings import MOST, Options
from tdbench.space.settings import SPACE_COLUMNS
from tdbench.space.similarity import DEFAULT_MAX_SIMILARITY

if TYPE_CHECKING:
    from tdbench.store.library import TaskLibrary

FILES = click.argument("files", nargs=-1, type=PATH, required=True, metavar="FILE...")

_SPACE: list[Callable[[Any], Any]] = [
    *(common(name) for name in ("data", "classes", "n", "ratio", "space_seed", "split", "steps", "lr")),
    click.option("--confirm", type=int, help="Replicates that score each labeling.", **default("confirm")),
]
_TRAINING: list[Callable[[Any], Any]] = [
    click.option("--sealed", type=PATH, metavar="KEYFILE", help="Confirm on the replicates that this key draws."),
    *(common(name) for name in ("data_dir", "download", "engine", "device", "threads", "cluster")),
]


class TaskCommands(Named):
    """A group whose help page has its commands in the order below."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.command(cls=TaskCommands, no_args_is_help=True, short_help="Show, confirm, merge and extend found tasks")
def tasks() -> None:
    """Found tasks: show, confirm, merge and compare them, and extend them to images outside of their set.

    A task library is an .npz that `tdbench discover` or `tdbench tasks score` wrote.
    """


@tasks.command("show")
@FILES
@click.option("--threshold", type=float, metavar="T_TASK", help="Count the tasks that confirm above this taskness.")
@format_option
def show_tasks(files: tuple[Path, ...], threshold: float | None, form: str) -> None:
    """The members of task libraries, and what each library is worth."""
    from tdbench.leaderboard.threshold import checked_threshold
    from tdbench.tasks.extend import known_extension
    from tdbench.tasks.tables import library_document, library_table, member_records

    if threshold is not None:
        checked_threshold(threshold)
    libraries = _loaded(files)
    known = [(name, library, known_extension(Path(name), library)) for name, library in libraries]
    show(
        form,
        [library_table(*one, threshold) for one in known],
        member_records(libraries),
        document=[library_document(*one, threshold) for one in known],
    )


@tasks.command("score")
@click.argument("file", type=PATH)
@click.option("--out", type=PATH, required=True, metavar="NAME.npz", help="The task library to write.")
@with_options(_SPACE)
@with_options(_TRAINING)
@format_option
@click.pass_context
def score_tasks(context: click.Context, /, file: Path, out: Path, form: str, **given: Any) -> None:
    """Confirm labelings that somebody else made, as those of runs are confirmed.

    FILE is a CSV with a line for each labeling: N cells of 0 and 1, before them a name if you like. Or it is a task
    library, which is confirmed once more; then options of the space that are not given are its own.
    """
    from tdbench.base.progress import Counting
    from tdbench.cluster import chosen_engine, open_clusters
    from tdbench.store.library_file import check_path
    from tdbench.tasks.scoring import score_file
    from tdbench.tasks.tables import library_document, library_table, member_records

    check_path(out)
    explicit = {name: value for name, value in given.items() if _is_given(context, name)}
    options = _checked(given)
    with open_clusters():
        library = score_file(
            file,
            {name: value for name, value in explicit.items() if name in SPACE_COLUMNS},
            confirm=explicit.get("confirm"),
            engine=chosen_engine(given["engine"], given["device"], options.threads, options.cluster),
            data_dir=given["data_dir"],
            download=options.download,
            key=options.key,
            counting=Counting(True).counting,
        )
    library.save(out)
    name = str(out)
    show(
        form,
        [library_table(name, library, None, None)],
        member_records([(name, library)]),
        document=library_document(name, library),
    )
    click.echo(f"wrote {escaped(name)}", err=True)


@tasks.command("merge")
@FILES
@click.option("--out", type=PATH, required=True, metavar="NAME.npz", help="The task library to write.")
@click.option(
    "--max-similarity",
    type=float,
    default=DEFAULT_MAX_SIMILARITY,
    show_default=True,
    help="Of two tasks that are more similar, the better confirmed one stays.",
)
@click.option("--tasks", "most", type=int, metavar="K", help="Keep the best K; all by default.")
def merge_tasks(files: tuple[Path, ...], out: Path, max_similarity: float, most: int | None) -> None:
    """Join task libraries of one space; of tasks that are too similar the best confirmed stays."""
    from tdbench.store.library_file import check_path

    check_path(out)
    first, *others = (library for _, library in _loaded(files))
    merged = first.merge(*others, max_similarity=max_similarity, tasks=most)
    merged.save(out)
    before = len(first) + sum(map(len, others))
    click.echo(f"wrote {escaped(str(out))}: {len(merged)} of {before} tasks, confirmed QD {merged.confirmed_qd:.3f}")


@tasks.command("compare")
@FILES
@format_option
def compare_tasks(files: tuple[Path, ...], form: str) -> None:
    """Task libraries side by side: what each is worth, and how many tasks they share."""
    from tdbench.tasks.tables import comparison_document, comparison_records, comparison_tables

    libraries = _loaded(files)
    show(
        form,
        comparison_tables(libraries),
        comparison_records(libraries),
        document=comparison_document(libraries),
    )


@tasks.command("extend")
@click.argument("file", type=PATH)
@click.option("--data", help="The source, where the library's images came from an .npz.")
@click.option(
    "--networks",
    type=click.IntRange(2, MOST),
    metavar="INTEGER",
    help="Networks for each task; as many as confirmed it by default.",
)
@click.option("--picture", type=PATH, metavar="FILE.png|.svg", help="Also draw each task with the images at both ends.")
@with_options(_TRAINING)
@format_option
def extend_tasks(file: Path, picture: Path | None, form: str, **given: Any) -> None:
    """Let the networks of each task vote on all images of the source that are outside of its set.

    Shows the classes of the twelve most and least positive images and how far the networks agree (1: on every image,
    0: no more than by chance), and writes NAME.extended.npz and NAME.extended.csv beside the library.
    """
    from tdbench.base.progress import Counting
    from tdbench.cluster import chosen_engine, open_clusters
    from tdbench.report.extended import check_picture_path, write_extended_picture
    from tdbench.store.library import TaskLibrary
    from tdbench.store.library_file import check_path
    from tdbench.tasks.extend import COLUMNS, extend, extension_path
    from tdbench.tasks.scoring import space_of
    from tdbench.tasks.tables import extension_table

    if picture is not None:
        check_picture_path(picture)
    library = TaskLibrary.load(file)
    check_path(extension_path(file), COLUMNS)
    options = _checked(given)
    with open_clusters(), Counting(True).counting("tasks", len(library)) as advance:
        engine = chosen_engine(given["engine"], given["device"], options.threads, options.cluster)
        space, source = space_of(library, engine, **{name: given[name] for name in ("data", "data_dir", "download")})
        extension = extend(library, space, source, networks=given["networks"], key=options.key, advance=advance)
    path = extension.save(extension_path(file))
    show(form, [extension_table(str(file), library, extension)], extension.records())
    if picture is not None:
        title = f"{space.source}, N = {space.n}, 1:{space.ratio}, seed {space.seed}"
        write_extended_picture(picture, library, extension, space.pixels, source.images, title)
    for written in (path, *([picture] if picture else [])):
        click.echo(f"wrote {escaped(str(written))}", err=True)


def _loaded(files: tuple[Path, ...]) -> list[tuple[str, TaskLibrary]]:
    from tdbench.store.library import TaskLibrary
    from tdbench.tasks.extend import EXTENDED

    named = [path for path in files if not path.name.endswith(EXTENDED)] or files  # `libraries/*.npz` names both
    return [(str(path), TaskLibrary.load(path)) for path in named]


def _checked(given: dict[str, Any]) -> Options:
    """What `tdbench run` would make of these options."""
    return Options(**{name: given[name] for name in ("threads", "cluster", "data_dir", "download", "sealed")})


def _is_given(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
