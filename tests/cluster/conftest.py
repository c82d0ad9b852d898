"""A cluster needs the extra `cluster`."""

import pytest

pytest.importorskip("distributed")
