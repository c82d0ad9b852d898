"""Help pages: short enough to be read."""

from __future__ import annotations

import click
import pytest
from helpers import called

from tdbench.cli import COMMANDS, tdbench

LONGEST_SUMMARY = 55  # characters


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_a_summary_that_fits(name: str) -> None:
    command = tdbench.get_command(click.Context(tdbench), name)  # type: ignore[attr-defined]
    assert 0 < len(command.get_short_help_str(1000)) <= LONGEST_SUMMARY


def test_no_summary_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    code, printed, _ = called(capsys, "--help")
    assert code == 0
    assert "..." not in printed.partition("Commands:")[2]
