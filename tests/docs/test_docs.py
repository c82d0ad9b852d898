"""The documentation says what the code does: commands, options, help pages, columns, modules and links."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from helpers import ROOT

from tdbench.cli import COMMANDS, tdbench
from tdbench.cli.printing import FORMATS
from tdbench.store.rows import COLUMNS

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PACKAGES = [ROOT / "tdbench", *sorted(p.parent for p in (ROOT / "tdbench").glob("*/__init__.py"))]
PACKAGES.append(ROOT / "plugins" / "tdbench_plugins")
TABLES = ("bench", "status", "leaderboard", "compare", "searchers", "check", "doctor", "perf")


def section(page: str, heading: str) -> str:
    """The text of a page from a heading of the second level to the next."""
    text = (ROOT / page).read_text(encoding="utf-8")
    assert f"\n## {heading}\n" in text, f"{page} has no section {heading!r}"
    return text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def cells(text: str) -> list[list[str]]:
    """The rows of the tables in a text, without headers."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    rules = [i for i, row in enumerate(rows) if set("".join(row)) <= set("-: ")]
    return [row for i, row in enumerate(rows) if i not in rules and i + 1 not in rules]


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def blocks(page: Path) -> Iterator[str]:
    """The fenced blocks of a page."""
    yield from re.findall(r"^```[a-z]*\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def calls() -> Iterator[tuple[str, list[str]]]:
    """Each `tdbench ...` in the fenced blocks of all pages, with the page that has it."""
    for page in PAGES:
        for line in "\n".join(blocks(page)).replace("\\\n", " ").splitlines():
            for command in re.findall(r"(?:^|&&|\$)\s*(?:\S*/)?tdbench\s+([a-z][^#&|>]*)", line):
                yield page.name, shlex.split(command)


CALLS = list(calls())


def test_readme_lists_the_commands_in_the_order_of_the_help_page() -> None:
    listed = [names(row[0])[0] for row in cells(section("README.md", "Commands"))]
    assert listed == [f"tdbench {command}" for command in COMMANDS]


def test_docs_call_tdbench() -> None:
    assert {"run", "bench", "leaderboard", "compare", "export", "study"} <= {words[0] for _, words in CALLS}


@pytest.mark.parametrize(("page", "words"), CALLS, ids=[f"{page}: {' '.join(words)}" for page, words in CALLS])
def test_every_option_in_a_quoted_call_exists(page: str, words: list[str]) -> None:
    context = click.Context(tdbench)
    command = tdbench.get_command(context, words[0])
    assert command is not None, f"{page} calls tdbench {words[0]}"
    if isinstance(command, click.Group) and words[1:] and not words[1].startswith("-"):
        command = command.get_command(context, words[1])
        assert command is not None, f"{page} calls tdbench {words[0]} {words[1]}"
    known = {"--help", "-h", *(option for param in command.params for option in param.opts)}
    used = {word.partition("=")[0] for word in words if word.startswith("-")}
    assert used <= known


QUOTED_HELP = [
    (page.name, block) for page in PAGES for block in blocks(page) if re.match(r"\$ tdbench .*--help\n", block)
]


@pytest.mark.parametrize(("page", "block"), QUOTED_HELP, ids=[page for page, _ in QUOTED_HELP])
def test_quoted_help_pages_are_as_printed(page: str, block: str) -> None:
    call, _, quoted = block.partition("\n")
    printed = CliRunner().invoke(tdbench, shlex.split(call)[2:], prog_name="tdbench", terminal_width=78)  # 80 columns
    assert quoted.strip() == printed.output.strip()


@pytest.mark.parametrize("name", TABLES)
def test_commands_that_print_a_table_take_every_format(name: str) -> None:
    command = tdbench.get_command(click.Context(tdbench), name)
    assert command is not None
    (option,) = [param for param in command.params if "--format" in param.opts]
    assert isinstance(option.type, click.Choice)
    assert tuple(option.type.choices) == FORMATS


def test_the_columns_of_the_csv_are_explained_in_order() -> None:
    rows = cells(section("docs/reading-a-leaderboard.md", "The CSV file"))
    assert [names(row[0])[0] for row in rows] == list(COLUMNS)
    assert all(row[1] for row in rows)


def modules(package: Path) -> set[str]:
    return {path.stem for path in package.glob("*.py") if path.stem != "__init__"}


def mapped() -> dict[str, list[str]]:
    """Package -> its modules, as the map of CONTRIBUTING has them."""
    found: dict[str, list[str]] = {}
    package = ""
    for row in cells(section("CONTRIBUTING.md", "Where things are")):
        package = names(row[0])[0] if row[0] else package
        found.setdefault(package, []).extend(names(row[1]))
    return found


def test_the_map_has_every_package() -> None:
    assert set(mapped()) == {package.relative_to(ROOT).as_posix() for package in PACKAGES}


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_map_has_every_module(package: Path) -> None:
    listed = mapped()[package.relative_to(ROOT).as_posix()]
    assert sorted(listed) == sorted(modules(package))


def test_where_to_change_what_names_files_that_exist() -> None:
    rows = cells(section("CONTRIBUTING.md", "Where to change what"))
    assert len(rows) >= 25
    assert not [row for row in rows if not (ROOT / names(row[1])[0]).is_file()]


LINKS = [
    (page, link)
    for page in PAGES
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    if "://" not in link
]


@pytest.mark.parametrize(("page", "link"), LINKS, ids=[f"{page.name}: {link}" for page, link in LINKS])
def test_links_lead_somewhere(page: Path, link: str) -> None:
    file, _, anchor = link.partition("#")
    target = (page.parent / file).resolve() if file else page
    assert target.exists()
    if anchor:
        headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), flags=re.M)
        assert anchor in {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
