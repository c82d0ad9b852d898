"""The rule ``--recommend race:F``: the last part of a run's budget tells the good from the lucky.

A search over noisy evaluations leaves leaders that are mostly lucky. The last fraction F of the budget evaluates the
leading candidates again, by sequential halving (Karnin, Koren & Somekh, *Almost optimal exploration in multi-armed
bandits*, ICML 2013, algorithm 1; Jamieson & Talwalkar, AISTATS 2016, call it successive halving). The rule is in the
definitions, section 5. Plain arrays in and out; the arena does the evaluating.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray

from tdbench.space.labelings import LabelVectors

_FIRST_ROUND = 2  # evaluations of each candidate in the first round, at least


def field_size(budget: int) -> int:
    """Most candidates of a race of `budget` evaluations: the largest power of two K with 2 K log2(K) <= budget.

    So log2(K) equal rounds leave each candidate two evaluations or more in the first.
    """
    size = 2
    while _FIRST_ROUND * 2 * size * int(math.log2(2 * size)) <= budget:
        size *= 2
    return size


def entrants(labels: LabelVectors, told: NDArray[np.float64], own: LabelVectors | None, budget: int) -> LabelVectors:
    """(K, N) distinct candidates for a race of `budget` evaluations, the leader first.

    Args:
        labels, told: (n, N) label vectors of the search and the (n,) taskness its searcher was told.
        own: (N,) the searcher's own recommendation; it leads the field. None where it makes none.

    The others are the labelings told the highest single values, the earlier of equals first.
    """
    order = np.argsort(-told, kind="stable")
    ranked = labels[order] if own is None else np.concatenate([own[None], labels[order]])
    _, first = np.unique(ranked, axis=0, return_index=True)
    chosen: LabelVectors = ranked[np.sort(first)[: field_size(budget)]]
    return chosen


class Race:
    """Sequential halving over (K, N) candidates, to be asked and told until it is over.

    The budget is divided into ceil(log2 K) rounds (one, where there is a single candidate), as equal as can be. Within
    a round the candidates still in take turns, the leading ones first. After it the better half of them, rounded up,
    stays in: by their mean over all their evaluations in the race so far. What they were told in the search is left
    out, since they were chosen for it. Of equals the earlier candidate is better. One is left after the last round, the
    winner.
    """

    def __init__(self, candidates: LabelVectors, budget: int) -> None:
        self._candidates = candidates
        self._sums = np.zeros(len(candidates))
        self._counts = np.zeros(len(candidates), dtype=np.int64)
        self._left_in = np.arange(len(candidates))  # the leading one first
        rounds = max(1, math.ceil(math.log2(len(candidates))))
        ends = [budget * i // rounds for i in range(rounds + 1)]
        self._rounds = [end - start for start, end in itertools.pairwise(ends)]
        self._turns = self._next_round()

    def ask(self, n: int) -> LabelVectors:
        """(m, N) label vectors to evaluate next, 1 <= m <= n; none, m = 0, once the race is over."""
        return self._candidates[self._turns[:n]]

    def tell(self, taskness: NDArray[np.float64]) -> None:
        """Learn that the first (m,) of the vectors just asked have this taskness."""
        told, self._turns = self._turns[: len(taskness)], self._turns[len(taskness) :]
        np.add.at(self._sums, told, taskness)
        np.add.at(self._counts, told, 1)
        if len(self._turns) == 0:
            self._halve()
            self._turns = self._next_round()

    @property
    def winner(self) -> LabelVectors:
        """(N,) the leading candidate: the winner, once the race is over."""
        leader: LabelVectors = self._candidates[self._left_in[0]]
        return leader

    def _next_round(self) -> NDArray[np.int64]:
        """Candidates in the order of their turns."""
        evaluations = self._rounds.pop(0) if self._rounds else 0
        return self._left_in[np.arange(evaluations) % len(self._left_in)]

    def _halve(self) -> None:
        entered = np.sort(self._left_in)  # so that the stable sort favours the earlier candidate
        means = self._sums[entered] / self._counts[entered]
        self._left_in = entered[np.argsort(-means, kind="stable")][: math.ceil(len(entered) / 2)]
