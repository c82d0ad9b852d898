"""What a wait looks like where there is no terminal."""

from __future__ import annotations

import re

import pytest

from tdbench.base import progress


def test_without_a_terminal_a_line_says_how_far_the_work_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    with progress.Counting(shown=True).counting("trainings", 7) as advance:
        advance(3)
        said = capsys.readouterr().err
    assert "trainings 3 of 7" in said
    with progress.Progress(evaluations=10, shown=True) as bars:
        bars.advance(4, 0.25)
        said = capsys.readouterr().err
    assert re.search(r"evaluations 4 of 10.*best told 0\.250", said)


def test_nothing_is_said_where_no_progress_is_wanted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    with progress.Counting(shown=False).counting("trainings", 7) as advance:
        advance(3)
    assert capsys.readouterr() == ("", "")
