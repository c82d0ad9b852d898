"""The rule ``--recommend race:F``: the last part of a run's budget tells the good from the lucky.

A search over noisy evaluations leaves leaders that are mostly lucky. The last fraction F of the budget evaluates the
leading candidates again, by sequential halving (Karnin, Koren & Somekh, *Almost optimal exploration in multi-armed
bandits*, ICML 2013, algorithm 1; Jamieson & Talwalkar, AISTATS 2016, call it successive halving). The rule is in the
definitions, section 5. Plain arrays in and out; the arena does the evaluating.
"""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from tdbench.base.errors import UserError

Labels = NDArray[np.uint8]

RULE = "race"
LEAST = 4  # evaluations: two candidates, twice each
_FIRST_ROUND = 2  # evaluations of each candidate in the first round, at least


def race_share(recommend: str) -> float | None:
    """F of the rule ``race:F``; None for any other rule.

    Raises:
        UserError: a race without an F, or with one that is not strictly between 0 and 1.
    """
    name, _, written = recommend.partition(":")
    if name != RULE:
        return None
    try:
        share = float(written)
    except ValueError:
        share = math.nan
    if not 0 < share < 1:
        raise UserError(
            f"recommend {RULE}:F needs an F between 0 and 1, the share of the budget that it takes, "
            f"such as {RULE}:0.25; got {recommend!r}"
        )
    return share


def race_budget(recommend: str, budget: int) -> int:
    """Evaluations of `budget` that the race takes: F x budget, rounded; 0 for any other rule."""
    share = race_share(recommend)
    return 0 if share is None else round(Fraction(repr(share)) * budget)


def search_budget(recommend: str, budget: int) -> int:
    """Evaluations of `budget` that the searcher is asked for, and told: all but the race's."""
    return budget - race_budget(recommend, budget)


def check_race(recommend: str, budget: int, batch: int) -> None:
    """Raises UserError where the rule leaves too few evaluations for a race, or too few for a search before it."""
    if race_share(recommend) is None:
        return
    racing = race_budget(recommend, budget)
    if budget < batch + LEAST:
        raise UserError(
            f"a race of at least {LEAST} evaluations after a search of at least one batch of {batch} needs "
            f"a budget of {batch + LEAST}, got {budget}; raise --budget or lower --batch"
        )
    if racing < LEAST:
        raise UserError(
            f"recommend {recommend} leaves {racing} of {budget} evaluations to the race, which needs at "
            f"least {LEAST}: use {RULE}:{_nearest_share(LEAST, budget, batch)} or more"
        )
    if budget - racing < batch:
        raise UserError(
            f"recommend {recommend} leaves {budget - racing} of {budget} evaluations to the search, which "
            f"needs at least one batch of {batch}: use {RULE}:{_nearest_share(budget - batch, budget, batch)} "
            "or less, or lower --batch"
        )


def field_size(budget: int) -> int:
    """Most candidates of a race of `budget` evaluations: the largest power of two K with 2 K log2(K) <= budget.

    So log2(K) equal rounds leave each candidate two evaluations or more in the first.
    """
    size = 2
    while _FIRST_ROUND * 2 * size * int(math.log2(2 * size)) <= budget:
        size *= 2
    return size


def entrants(labels: Labels, told: NDArray[np.float64], own: Labels | None, budget: int) -> Labels:
    """(K, N) distinct candidates for a race of `budget` evaluations, the leader first.

    Args:
        labels, told: (n, N) label vectors of the search and the (n,) taskness its searcher was told.
        own: (N,) the searcher's own recommendation; it leads the field. None where it makes none.

    The others are the labelings told the highest single values, the earlier of equals first.
    """
    order = np.argsort(-told, kind="stable")
    ranked = labels[order] if own is None else np.concatenate([own[None], labels[order]])
    _, first = np.unique(ranked, axis=0, return_index=True)
    chosen: Labels = ranked[np.sort(first)[: field_size(budget)]]
    return chosen


class Race:
    """Sequential halving over (K, N) candidates, to be asked and told until it is over.

    The budget is divided into ceil(log2 K) rounds (one, where there is a single candidate), as equal as can be. Within
    a round the candidates still in take turns, the leading ones first. After it the better half of them, rounded up,
    stays in: by their mean over all their evaluations in the race so far. What they were told in the search is left
    out, since they were chosen for it. Of equals the earlier candidate is better. One is left after the last round, the
    winner.
    """

    def __init__(self, candidates: Labels, budget: int) -> None:
        self._candidates = candidates
        self._sums = np.zeros(len(candidates))
        self._counts = np.zeros(len(candidates), dtype=np.int64)
        self._left_in = np.arange(len(candidates))  # the leading one first
        rounds = max(1, math.ceil(math.log2(len(candidates))))
        ends = [budget * i // rounds for i in range(rounds + 1)]
        self._rounds = [end - start for start, end in itertools.pairwise(ends)]
        self._turns = self._next_round()

    def ask(self, n: int) -> Labels:
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
    def winner(self) -> Labels:
        """(N,) the leading candidate: the winner, once the race is over."""
        leader: Labels = self._candidates[self._left_in[0]]
        return leader

    def _next_round(self) -> NDArray[np.int64]:
        """Candidates in the order of their turns."""
        evaluations = self._rounds.pop(0) if self._rounds else 0
        return self._left_in[np.arange(evaluations) % len(self._left_in)]

    def _halve(self) -> None:
        entered = np.sort(self._left_in)  # so that the stable sort favours the earlier candidate
        means = self._sums[entered] / self._counts[entered]
        self._left_in = entered[np.argsort(-means, kind="stable")][: math.ceil(len(entered) / 2)]


def _nearest_share(evaluations: int, budget: int, batch: int) -> str:
    """A share with few digits that gives the race about so many evaluations, and leaves enough to race and search."""
    for digits in range(2, 20):
        below = Fraction(evaluations * 10**digits // budget, 10**digits)
        for share in (below, below + Fraction(1, 10**digits)):
            if LEAST <= round(share * budget) <= budget - batch:
                return f"{float(share)!r}"
    raise AssertionError("a share with 19 digits is exact")
