"""The contract finds what it is there to find, and says it in a line that helps."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tdbench import Problem, UserError
from tdbench.testing import CHECKS, SearcherContract, Subject, check_searcher, global_random_state_is_left_alone

FIXTURES = str(Path(__file__).parents[1] / "fixtures" / "misbehaving.py")


def failures(name: str, **options: Any) -> dict[str, str]:
    return {r.name: r.message for r in check_searcher(name, [FIXTURES], **options) if not r.passed}


@pytest.mark.parametrize(
    ("name", "check", "said"),
    [
        ("raises-at-start", "asks_are_well_formed", "it raised RuntimeError: raised at start"),
        ("raises-in-ask", "asks_are_well_formed", "it raised RuntimeError: raised in ask"),
        ("raises-in-tell", "asks_are_well_formed", "it raised RuntimeError: raised in tell"),
        ("nan", "asks_are_well_formed", "ask(8) must return finite numbers"),
        ("wrong-shape", "asks_are_well_formed", "must return an array of shape (8, 20), but it had shape (9, 20)"),
        ("out-of-range", "asks_are_well_formed", "must return numbers in [0, 1], but they were from 2 to 2"),
        ("wrong-type", "asks_are_well_formed", "must return a numpy array, not list"),
        ("not-reproducible", "same_seed_asks_the_same", "with the same seed"),
        ("same-vector", "other_seed_asks_otherwise", "seeds 1 and 2 led to the same asks"),
        ("same-vector", "better_than_random", "was expected of a baseline"),
        ("bad-recommend", "recommendation_is_well_formed", "it raised RuntimeError: raised in recommend"),
    ],
)
def test_a_misbehaving_searcher_fails_the_check_that_is_meant_for_it(name: str, check: str, said: str) -> None:
    assert said in failures(name)[check]


def test_harmless_names_pass_whatever_they_look_like() -> None:
    assert failures("=cmd()") == {}


def test_results_come_one_by_one_and_say_what_was_checked() -> None:
    results = check_searcher("random")
    assert next(results).name == CHECKS[0].__name__
    assert all(result.message for result in results)


def test_every_check_is_a_test_of_the_class_to_subclass() -> None:
    tests = [name for name in vars(SearcherContract) if name.startswith("test_")]
    assert tests == [f"test_{check.__name__}" for check in CHECKS]


@pytest.mark.parametrize("name", ["nowhere", "optuna", "optuna:Nowhere"])
def test_a_searcher_that_is_not_there_is_a_user_error_at_once(name: str) -> None:
    with pytest.raises(UserError):
        check_searcher(name)


def test_a_contract_of_nothing_says_what_it_needs() -> None:
    with pytest.raises(UserError, match="needs a name"):
        SearcherContract().subject()


class Base:
    def __init__(self, problem: Problem) -> None:
        self.dim, self.rng = problem.dim, np.random.default_rng(problem.seed)
        self.last: Any = None

    def ask(self, n: int) -> Any:
        return self.rng.random((n, self.dim))

    def tell(self, scores: Any, loss: Any) -> None:
        pass


class DrawsFromNumpy(Base):
    def ask(self, n: int) -> Any:
        return np.random.random((n, self.dim))  # noqa: NPY002 - what the contract is to find


class DrawsFromPython(Base):
    def tell(self, scores: Any, loss: Any) -> None:
        random.random()


class DrawsFromTorch(Base):
    def tell(self, scores: Any, loss: Any) -> None:
        import torch

        torch.rand(1)


class KeepsWhatItIsTold(Base):
    def ask(self, n: int) -> Any:
        return super().ask(n) if self.last is None else np.clip(self.last[:n], 0, 1)

    def tell(self, scores: Any, loss: Any) -> None:
        self.last = scores


class ChangesWhatItIsTold(Base):
    def tell(self, scores: Any, loss: Any) -> None:
        loss -= loss.mean()


class RecommendsByDrawing(Base):
    def recommend(self) -> Any:
        return self.rng.random(self.dim)


class HasNoTell:
    def __init__(self, problem: Problem) -> None: ...

    def ask(self, n: int) -> Any: ...


@pytest.mark.parametrize(
    ("factory", "check", "said"),
    [
        (DrawsFromNumpy, "test_global_random_state_is_left_alone", "global random state of numpy"),
        (DrawsFromNumpy, "test_same_seed_asks_the_same", "with the same seed"),
        (DrawsFromPython, "test_global_random_state_is_left_alone", "global random state of random"),
        (KeepsWhatItIsTold, "test_arrays_are_left_alone", "keep copies"),
        (ChangesWhatItIsTold, "test_asks_are_well_formed", "tell.. changed the losses"),
        (RecommendsByDrawing, "test_recommendation_is_well_formed", "must change nothing"),
        (HasNoTell, "test_asks_are_well_formed", "has no tell"),
        (Base, "test_better_than_random", "register it with baseline=True"),
    ],
)
def test_a_fault_is_named(factory: Any, check: str, said: str) -> None:
    contract = type("Contract", (SearcherContract,), {"factory": staticmethod(factory)})()
    with pytest.raises(AssertionError, match=said):
        getattr(contract, check)()


def test_torch_is_watched_where_it_is_in_use() -> None:
    pytest.importorskip("torch")
    with pytest.raises(AssertionError, match="global random state of torch"):
        global_random_state_is_left_alone(Subject("torch", DrawsFromTorch))


def test_random_search_is_a_baseline_and_no_more() -> None:
    class Contract(SearcherContract):
        factory = staticmethod(Base)
        baseline = True

    Contract().test_better_than_random()
