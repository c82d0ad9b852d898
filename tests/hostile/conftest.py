"""One bench of the decent searchers alone, for all hostile tests to compare with."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import rude


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents and not sys.platform.startswith("linux"):
            item.add_marker(pytest.mark.skip(reason="processes are looked for in /proc"))


@pytest.fixture(scope="session")
def decent(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """The rows of the decent searchers, by searcher, with nobody rude beside them."""
    done = rude.bench(tmp_path_factory.mktemp("decent"), list(rude.DECENT))
    assert done.code == 0, done.err
    assert set(done.rows) == set(rude.DECENT)
    return done.rows
