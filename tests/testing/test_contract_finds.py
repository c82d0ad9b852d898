"""The contract finds what it is there to find, and says it in a line that helps."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import tdbench

from tdbench import Problem, UserError
from tdbench.searchers.loading import load_plugins
from tdbench.testing import ReductionContract, SearcherContract, check_reduction, check_searcher

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
        (
            "wrong-shape",
            "asks_are_well_formed",
            "expected an array from ask(8) with shape (8, 20), but it had shape (9, 20)",
        ),
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


def details(name: str, check: str) -> tuple[str, ...]:
    (result,) = check_searcher(name, [FIXTURES], checks=[check])
    assert not result.passed
    return result.details


def test_a_violation_shows_the_offending_values_and_the_call_that_gave_them() -> None:
    values, call = details("out-of-range", "asks_are_well_formed")
    assert values == "160 of 160 values: [0, 0] = 2, [0, 1] = 2, [0, 2] = 2, [0, 3] = 2, [0, 4] = 2, ..."
    assert re.fullmatch(r"after ask\(8\) of \w+ \(misbehaving.py, line \d+\), its call number 1", call)


def test_an_error_shows_the_lines_of_the_authors_file() -> None:
    call, *lines = details("raises-in-tell", "asks_are_well_formed")
    assert re.match(r"after tell\(array \(8, 20\), array \(8,\)\) of \w+ \(misbehaving.py, line \d+\)", call)
    assert re.fullmatch(r"misbehaving.py, line \d+, in tell: raise RuntimeError\(.*\)", lines[-1])


def test_the_command_prints_them_below_the_check() -> None:
    printed = tdbench("check", "raises-in-tell", "--plugin", FIXTURES).stdout
    assert re.match(r"FAILED .*raised in tell.*\n +after tell\(.*\n +misbehaving.py, line \d+, in tell: raise", printed)


@pytest.mark.parametrize("name", ["done", "done-recommends", "each", "starts", "seven"])
def test_optional_parts_hold_the_contract(tmp_path: Path, name: str) -> None:
    plugin = str(shutil.copy(Path(FIXTURES).with_name("optional_parts.py"), tmp_path))
    checks = [check for check in SearcherContract.checks() if check != "better_than_random"]
    checks = checks[-2:-1] if name == "starts" else checks
    failed = [result for result in check_searcher(name, [plugin], checks=checks) if not result.passed]
    assert failed == [], failed


def test_done_at_once_does_not() -> None:
    plugin = str(Path(FIXTURES).with_name("optional_parts.py"))
    (result,) = check_searcher("done-at-once", [plugin], checks=["asks_are_well_formed"])
    assert result.message == "ask(8) raised tdbench.Done before the searcher was told anything"


def test_harmless_names_pass_whatever_they_look_like() -> None:
    assert failures("=cmd()") == {}


def test_results_come_one_by_one_and_say_what_was_checked() -> None:
    results = check_searcher("random")
    assert next(results).name == SearcherContract.checks()[0]
    assert all(result.message for result in results)


@pytest.mark.parametrize(
    ("contract", "check", "name"),
    [(SearcherContract, check_searcher, "random"), (ReductionContract, check_reduction, "pca")],
)
def test_pytest_and_the_function_see_the_same_checks_in_the_same_order(
    tmp_path: Path, contract: Any, check: Any, name: str
) -> None:
    (tmp_path / "test_mine.py").write_text(
        f"from tdbench.testing import {contract.__name__}\nclass TestMine({contract.__name__}):\n    name = {name!r}"
    )
    collected = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        capture_output=True, text=True, check=True, cwd=tmp_path,
    ).stdout  # fmt: skip
    assert re.findall("::test_(.*)", collected) == [result.name for result in check(name)]


def test_only_the_checks_that_are_asked_for_are_run() -> None:
    asked = ("batch_size_one_works", "asks_are_well_formed")
    assert tuple(result.name for result in check_searcher("random", checks=asked)) == asked


def test_a_registration_is_checked_like_its_name() -> None:
    found = load_plugins([FIXTURES])
    asked = ("asks_are_well_formed",)
    assert list(check_searcher(found.searchers["nan"], checks=asked)) == list(
        check_searcher("nan", [FIXTURES], checks=asked)
    )


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
    contract = type("Contract", (SearcherContract,), {"factory": staticmethod(DrawsFromTorch)})()
    with pytest.raises(AssertionError, match="global random state of torch"):
        contract.test_global_random_state_is_left_alone()


def test_random_search_is_a_baseline_and_no_more() -> None:
    class Contract(SearcherContract):
        factory = staticmethod(Base)
        baseline = True

    Contract().test_better_than_random()


class OfImagesOnly(Base):
    def ask(self, n: int) -> Any:
        if self.dim not in (2, 20, 30, 500):
            raise ValueError("fewer dimensions than images")
        return super().ask(n)


@pytest.mark.parametrize("reducible", [True, False])
def test_fewer_dimensions_than_images_must_work_unless_it_says_that_they_do_not(reducible: bool) -> None:
    contract = type("Contract", (SearcherContract,), {"factory": staticmethod(OfImagesOnly), "reducible": reducible})()
    if not reducible:
        contract.test_large_and_small_dimensions_work()
        return
    with pytest.raises(ValueError, match="fewer dimensions"):
        contract.test_large_and_small_dimensions_work()


# reductions


def reduction_failures(name: str) -> dict[str, str]:
    return {r.name: r.message for r in check_reduction(name, [FIXTURES]) if not r.passed}


@pytest.mark.parametrize(
    ("name", "check", "said"),
    [
        ("broken-factory", "scores_are_well_formed", "it raised RuntimeError: raised in the factory"),
        ("broken-scores", "scores_are_well_formed", "it raised RuntimeError: raised in scores"),
        ("nan-scores", "scores_are_well_formed", "scores() must return finite numbers"),
        (
            "transposed-scores",
            "scores_are_well_formed",
            "expected an array from scores() with shape (1, 20), but it had shape (20, 1)",
        ),
        ("word-scores", "scores_are_well_formed", "must return a numpy array, not str"),
        ("no-dim", "scores_are_well_formed", "dim must be a whole number from 1, but it was None"),
        ("other-dim", "any_number_of_dimensions_works", "dim must be 1, as was asked for, but it was 2"),
        ("drawn-anew", "made_again_scores_the_same", "made twice on the same images, it gave other scores"),
        ("drifts", "a_vector_scores_the_same_in_any_company", "nothing may be kept from call to call"),
        ("constant", "vectors_make_a_difference", "all led to the same labeling"),
        ("keeps-scores", "arrays_are_left_alone", "return a copy"),
        ("global-draw", "global_random_state_is_left_alone", "global random state of numpy"),
        ("global-draw", "made_again_scores_the_same", "gave other scores"),
    ],
)
def test_a_misbehaving_reduction_fails_the_check_that_is_meant_for_it(name: str, check: str, said: str) -> None:
    assert said in reduction_failures(name)[check]


def test_a_reduction_that_behaves_passes() -> None:
    assert reduction_failures("projection") == {}


def test_a_reduction_without_a_dimension_of_the_users_choice_is_tested_in_its_own() -> None:
    class Brightness:
        dim = 1

        def __init__(self, problem: Any) -> None:
            self.brightness = problem.images.mean(axis=(1, 2, 3), dtype=np.float64)

        def scores(self, vectors: Any) -> Any:
            return (vectors - 0.5) * self.brightness

    class Contract(ReductionContract):
        factory = staticmethod(Brightness)
        sees_images = True
        takes_dim = False

    results = list(Contract().results())
    assert [result.name for result in results] == list(ReductionContract.checks())
    assert [result for result in results if not result.passed] == []


@pytest.mark.parametrize("name", ["nowhere", "ntk:0", "identity:3"])
def test_a_reduction_that_is_not_there_is_a_user_error_at_once(name: str) -> None:
    with pytest.raises(UserError):
        check_reduction(name)


def test_a_contract_of_no_reduction_says_what_it_needs() -> None:
    with pytest.raises(UserError, match="needs a name"):
        ReductionContract().subject()
