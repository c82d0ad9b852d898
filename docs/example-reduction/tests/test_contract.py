from tdbench.testing import ReductionContract


class TestWaves(ReductionContract):
    name = "waves"
