"""The examples in the docstrings of what Python users call."""

from __future__ import annotations

import doctest
import tempfile
from pathlib import Path
from types import ModuleType

import pytest

from tdbench import api
from tdbench.space import objective, similarity, task_space
from tdbench.store import library, worth
from tdbench.tasks import scoring


@pytest.mark.parametrize(
    "module", [task_space, objective, similarity, worth, library, scoring, api], ids=lambda module: module.__name__
)
def test_the_examples_give_what_they_show(module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
