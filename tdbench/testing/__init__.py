"""The contracts that every searcher and every reduction hold, as pytest classes to subclass and as functions.

    from tdbench.testing import SearcherContract

    class TestMine(SearcherContract):
        name = "mine"

`check_searcher("mine")` runs the same checks without pytest, and is what `tdbench check` does; `ReductionContract` and
`check_reduction` are the same for a reduction. The package imports `searchers`, `space` and `base`.
"""

from tdbench.testing.checks import CheckResult, ContractError
from tdbench.testing.reduction_contract import ReductionContract, check_reduction
from tdbench.testing.searcher_contract import SearcherContract, check_searcher

__all__ = [
    "CheckResult",
    "ContractError",
    "ReductionContract",
    "SearcherContract",
    "check_reduction",
    "check_searcher",
]
