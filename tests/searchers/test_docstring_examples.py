"""The examples in the docstrings of what plugins are written against."""

from __future__ import annotations

import doctest
from types import ModuleType

import pytest

from tdbench.base import errors
from tdbench.searchers import reduction, searcher


@pytest.mark.parametrize("module", [searcher, reduction, errors], ids=lambda module: module.__name__)
def test_the_examples_give_what_they_show(module: ModuleType) -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
