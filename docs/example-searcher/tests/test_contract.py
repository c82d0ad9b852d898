from tdbench.testing import SearcherContract


class TestMine(SearcherContract):
    name = "mine"
