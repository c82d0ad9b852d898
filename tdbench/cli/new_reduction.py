"""`tdbench new-reduction`, which is made as `new-searcher` is."""

from tdbench.cli.new_searcher import new_reduction

__all__ = ["new_reduction"]
