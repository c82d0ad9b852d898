"""What the tests of studies share."""

from __future__ import annotations

import pytest

from tdbench.engine import make_engine
from tdbench.settings import Options
from tdbench.studies._lab import Lab

ENGINE = make_engine()


class WatchedLab(Lab):
    """Keeps what it was asked to train, baselines apart."""

    def curves(self, requests, what="trainings"):
        if what != "baselines":
            self.requests = list(requests)
        return super().curves(requests, what)


@pytest.fixture
def lab(tmp_path):
    with WatchedLab(Options(out=tmp_path), ENGINE) as lab:
        yield lab
