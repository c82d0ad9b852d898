"""Bad calls of the public Python API: each is refused in one clear line, before anything is trained or written."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import CHEAP
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tdbench import TaskSpace, TrainingProtocol, UserError, bench, run
from tdbench.engine import make_engine
from tdbench.settings import Options, RunSettings
from tdbench.space.settings import SpaceSettings
from tdbench.space.sources import Source, load_source
from tdbench.testing import check_reduction, check_searcher

ENGINE = make_engine("batched", "cpu")
MINE = Source("mine", np.zeros((60, 32, 32, 3), dtype=np.uint8), np.arange(60) % 6, tuple("abcdef"))
SPACE = TaskSpace(MINE, n=12, ratio=2, steps=6, engine=ENGINE)
LABELS = SPACE.random_labelings(3)
LONGEST = 300


class Rude:
    """An object that raises whatever is done with it."""

    def _raise(self, *_: object) -> Any:
        raise RuntimeError("rude")

    __repr__ = __str__ = __eq__ = __bool__ = __len__ = __iter__ = __array__ = _raise  # type: ignore[assignment]
    __index__ = __int__ = __float__ = __fspath__ = __getattr__ = _raise  # type: ignore[assignment]
    __hash__ = object.__hash__


class Loud:
    """An object whose repr is long, has several lines, and drives a terminal."""

    def __repr__(self) -> str:
        return "\x1b[31mred\n\x07" * 1000


# What no argument takes, by name: hypothesis prints the names.
NOTHING: dict[str, Callable[[], Any]] = {
    "a rude object": Rude,
    "a loud object": Loud,
    "an object": object,
    "a mapping": lambda: {"a": 1},
    "bytes": lambda: b"digits",
    "a complex number": lambda: 1j,
    "a decimal": lambda: Decimal("1.5"),
    "a function": lambda: len,
    "a type": lambda: int,
    "nested lists": lambda: [[1, 2], [3]],
    "a list that holds itself": lambda: (loop := [], loop.append(loop))[0],
    "a list of a rude object": lambda: [Rude()],
    "an endless generator of rude objects": lambda: (Rude() for _ in itertools.count()),
    "a frame": lambda: pd.DataFrame({"a": [1.5]}),
    "a tensor that needs gradients": lambda: torch.ones((3, 12), requires_grad=True),
    "a matrix of NaN": lambda: np.full((3, 12), np.nan),
}
NUMBERS: dict[str, Callable[[], Any]] = {
    "NaN": lambda: float("nan"),
    "minus infinity": lambda: float("-inf"),
    "minus one": lambda: -1,
    "a huge number": lambda: 10**31,
    "a number of 5000 digits": lambda: 10**5000,
    "minus a number of 5000 digits": lambda: -(10**5000),
    "numpy's minus one": lambda: np.int64(-1),
}
FRACTIONS: dict[str, Callable[[], Any]] = {
    "1.5": lambda: 1.5,
    "numpy's 1.5": lambda: np.float32(1.5),
    "a whole float": lambda: 2.0,
    "a tensor of 1.5": lambda: torch.tensor(1.5),
}
BOOLS: dict[str, Callable[[], Any]] = {
    "true": lambda: True,
    "numpy's true": lambda: np.bool_(True),
    "a true tensor": lambda: torch.tensor(True),
}
INTEGERS: dict[str, Callable[[], Any]] = {"two": lambda: 2, "numpy's two": lambda: np.int64(2), "zero": lambda: 0}
STRINGS: dict[str, Callable[[], Any]] = {
    "an empty string": lambda: "",
    "a word": lambda: "yes",
    "a long string": lambda: "x" * 5000,
    "escape sequences": lambda: "\x1b[31mred\n\x07",
    "half a surrogate pair": lambda: "\ud800",
    "a NUL": lambda: "a\0b",
    "digits": lambda: "2",
}
LISTS: dict[str, Callable[[], Any]] = {
    "an empty list": list,
    "an empty array": lambda: np.array([]),
    "a list of numbers": lambda: [1, 2],
    "a series": lambda: pd.Series([0.5, 1.5]),
    "a list of long strings": lambda: ["y" * 5000] * 100,
}
NONE: dict[str, Callable[[], Any]] = {"none": lambda: None}

WHOLE = {**NOTHING, **NUMBERS, **FRACTIONS, **BOOLS, **STRINGS, **LISTS, **NONE}
REAL = {**NOTHING, **NUMBERS, **BOOLS, **STRINGS, **LISTS, **NONE, "zero": lambda: 0}
FLAG = {**NOTHING, **NUMBERS, **FRACTIONS, **INTEGERS, **STRINGS, **LISTS, **NONE}
NAME = {**NOTHING, **NUMBERS, **FRACTIONS, **INTEGERS, **BOOLS, **STRINGS, **LISTS, **NONE, "a path": lambda: Path("x")}
DATA = {**NAME, "a path": lambda: Path("x"), "a missing file": lambda: "x.npz"}
PATH = {name: value for name, value in DATA.items() if name not in ("a path", "a missing file", *STRINGS)} | {
    name: STRINGS[name] for name in ("a long string", "a NUL", "half a surrogate pair")
}
ARRAY = {**NOTHING, **NUMBERS, **FRACTIONS, **INTEGERS, **BOOLS, **STRINGS, **LISTS, **NONE}
SEALED = {name: value for name, value in NAME.items() if name != "an empty string"}
LABELED = {name: value for name, value in NAME.items() if name != "a list of long strings"}

# Values of these lists that an argument of that name does take.
FINE: dict[str, set[str]] = {
    "classes": {"none"},
    "data_dir": {"none"},
    "sealed": {"none"},
    "key": {"none"},
    "threads": {"none"},
    "threshold": {"none", "minus one", "numpy's minus one", "zero"},
    "checks": {"none", "an empty list", "an empty array"},
    "plugins": {"an empty list", "an empty array"},
    "seeds": {"a list of numbers"},
    "space_seeds": {"a list of numbers"},
}

SPACE_FIELDS: dict[str, Any] = {
    **dict.fromkeys(("n", "ratio", "space_seed", "steps"), WHOLE),
    "lr": REAL, "split": NAME, "classes": NAME,
}  # fmt: skip
RUN_FIELDS: dict[str, Any] = {
    **SPACE_FIELDS,
    **dict.fromkeys(("seed", "budget", "batch", "replicates", "confirm"), WHOLE),
    **dict.fromkeys(("noise", "recommend", "engine", "device"), NAME),
}
OPTION_FIELDS: dict[str, Any] = {
    **dict.fromkeys(("memory_limit", "workers", "threads"), WHOLE),
    **dict.fromkeys(("ask_timeout", "start_timeout"), REAL),
    **dict.fromkeys(("resume", "again", "download", "progress"), FLAG),
    **dict.fromkeys(("out", "data_dir", "sealed"), PATH),
    "references": NAME,
}
MADE = {"searcher": "random", "out": "out", **CHEAP}
SPACE_ARGUMENTS = {name: bad for name, bad in SPACE_FIELDS.items() if name != "space_seed"}
TASK_SPACE = {**SPACE_ARGUMENTS, "seed": WHOLE, "engine": NAME, "device": NAME, "data_dir": PATH, "download": FLAG}
AXES = {"data": DATA, "n": WHOLE, "ratio": WHOLE, "space_seeds": WHOLE, "searchers": NAME, "reductions": NAME}

# What is called, with arguments that it takes, and what is bad for each of its arguments.
CALLS: dict[str, tuple[Callable[..., Any], dict[str, Any], dict[str, Any]]] = {
    "TaskSpace": (TaskSpace, {"data": MINE, "n": 12, "ratio": 2}, {**TASK_SPACE, "data": DATA}),
    "TaskSpace.of": (
        TaskSpace.of,
        {"settings": SpaceSettings(n=12, ratio=2), "source": MINE},
        {"settings": NAME, "source": NAME, "engine": NAME},
    ),
    "TaskSpace.on": (SPACE.on, {"engine": ENGINE}, {"engine": NAME}),
    "decode": (SPACE.decode, {"scores": LABELS}, {"scores": ARRAY}),
    "checked_labels": (SPACE.checked_labels, {"labels": LABELS}, {"labels": ARRAY}),
    "taskness": (
        SPACE.taskness,
        {"labels": LABELS},
        {"labels": ARRAY, "replicates": WHOLE, "noise": NAME, "run_seed": WHOLE, "first_evaluation": WHOLE},
    ),
    "confirm": (SPACE.confirm, {"labels": LABELS}, {"labels": ARRAY, "replicates": WHOLE, "key": PATH}),
    "told_seeds": (
        SPACE.told_seeds,
        {"evaluations": [0, 1], "replicates": 1, "noise": "fresh", "run_seed": 0},
        {"replicates": WHOLE, "noise": NAME, "run_seed": WHOLE},
    ),
    "confirm_seeds": (
        SPACE.confirm_seeds,
        {"count": 1, "replicates": 1},
        {"count": WHOLE, "replicates": WHOLE, "key": NAME},
    ),
    "random_labelings": (SPACE.random_labelings, {"count": 1}, {"count": WHOLE, "seed": WHOLE}),
    "TrainingProtocol": (TrainingProtocol, {}, {"steps": WHOLE, "lr": REAL, "split": NAME}),
    "Source": (
        Source,
        {"name": "mine", "images": MINE.images, "labels": MINE.labels, "label_names": MINE.label_names},
        {"images": ARRAY, "labels": ARRAY, "label_names": LABELED},
    ),
    "load_source": (load_source, {"data": "digits"}, {"data": DATA, "data_dir": PATH, "download": FLAG}),
    "SpaceSettings": (SpaceSettings, {}, SPACE_FIELDS),
    "RunSettings": (RunSettings, {}, {**RUN_FIELDS, "sealed": SEALED}),
    "Options": (Options, {}, OPTION_FIELDS),
    "run": (run, MADE, {**RUN_FIELDS, **OPTION_FIELDS, "data": DATA, "searcher": NAME, "reduction": NAME,
                        "plugins": NAME, "threshold": NAME}),
    "bench": (
        bench,
        {"searchers": "random", "seeds": 1, "out": "out", **CHEAP},
        {**{k: v for k, v in RUN_FIELDS.items() if k not in ("seed", "space_seed")}, **OPTION_FIELDS, **AXES,
         "seeds": WHOLE, "plugins": NAME},
    ),
    "check_searcher": (
        check_searcher, {"searcher": "random"},
        {"searcher": NAME, "plugins": NAME, "deterministic": FLAG, "checks": NAME},
    ),
    "check_reduction": (
        check_reduction, {"reduction": "pca"}, {"reduction": NAME, "plugins": NAME, "checks": NAME}
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_is_trained_or_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    trained: list[object] = []
    monkeypatch.setattr(type(ENGINE), "curves", lambda *arguments: trained.append(arguments) or pytest.fail("trained"))
    yield
    assert trained == []
    assert list(tmp_path.iterdir()) == []


@st.composite
def bad_calls(draw: st.DrawFn) -> tuple[str, dict[str, str]]:
    """A function's name, and for one or two of its arguments the name of a value that it does not take."""
    name = draw(st.sampled_from(sorted(CALLS)))
    _, _, bad = CALLS[name]
    chosen = draw(st.lists(st.sampled_from(sorted(bad)), min_size=1, max_size=2, unique=True))
    return name, {argument: draw(st.sampled_from(sorted(_bad(name, argument)))) for argument in chosen}


def _bad(name: str, argument: str) -> dict[str, Callable[[], Any]]:
    """What an argument of a function does not take."""
    fine = FINE.get(argument, set())
    return {value: make for value, make in CALLS[name][2][argument].items() if value not in fine}


def refuse(name: str, values: dict[str, str]) -> None:
    """The call raises one of three exceptions, with one short line."""
    function, right, bad = CALLS[name]
    given = {**right, **{argument: bad[argument][value]() for argument, value in values.items()}}
    with pytest.raises((UserError, ValueError, TypeError)) as error:
        function(**given)
    message = str(error.value)
    assert message, "an empty message"
    assert message.isprintable(), repr(message)
    assert len(message) <= LONGEST, message


def every_bad_call() -> Iterator[tuple[str, dict[str, str]]]:
    for name, (_, _, bad) in CALLS.items():
        for argument in bad:
            for value in _bad(name, argument):
                yield name, {argument: value}


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bad_calls())
def test_a_bad_call_is_refused_in_one_line_and_changes_nothing(call: tuple[str, dict[str, str]]) -> None:
    refuse(*call)


@pytest.mark.long
@pytest.mark.timeout(3600)
@settings(max_examples=5000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bad_calls())
def test_thousands_of_bad_calls_are_refused_in_one_line(call: tuple[str, dict[str, str]]) -> None:
    refuse(*call)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_every_argument_refuses_every_bad_value() -> None:
    for name, values in every_bad_call():
        refuse(name, values)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: SPACE.taskness(LABELS, replicates=1.5), "replicates must be a whole number, got 1.5"),
        (lambda: SPACE.confirm(LABELS, replicates=0), "replicates must be at least 1, got 0"),
        (lambda: SPACE.decode(np.full((1, 12), np.nan)), "scores must be finite"),
        (lambda: bench("random", seeds=True), "seeds must be a whole number, got True"),
        (lambda: run("random", resume="yes"), "resume must be True or False, got 'yes'"),
        (lambda: SPACE.taskness(LABELS, first_evaluation=-1), "first_evaluation must be at least 0, got -1"),
        (lambda: SPACE.taskness(LABELS, first_evaluation=2**32 - 2), "first_evaluation must be at most"),
        (lambda: SPACE.taskness(LABELS, run_seed=1.0), "run_seed must be a whole number, got 1.0"),
        (lambda: SPACE.confirm(["a", "b"]), "labels must be an array of numbers, got ['a', 'b']"),
        (lambda: SPACE.confirm(LABELS.astype(object)), "labels must be an array of numbers"),
        (lambda: TaskSpace(MINE, n=12, ratio=2, classes="abc"), "classes must be a sequence of strings, got 'abc'"),
        (lambda: TaskSpace(MINE, n=12, ratio=2, seed=Rude()), "space seed must be a whole number, got <Rude"),
        (lambda: TaskSpace(MINE, n=12, ratio=2, engine="natif"), "did you mean 'native'"),
        (lambda: RunSettings(budget=10**5000), "budget must be at most 1000000000, got an integer of 16610 bits"),
        (lambda: Options(out="a" * 300), "out must be a string or a path, with at most 255 bytes in each part"),
        (lambda: check_searcher("random", checks=["asks"]), "there is no check 'asks'"),
        (lambda: check_searcher("random", plugins=["missing.py"]), "missing.py"),
    ],
)
def test_an_error_says_which_argument_what_was_expected_and_what_came(call: Callable[[], object], said: str) -> None:
    with pytest.raises((UserError, ValueError)) as error:
        call()
    assert said in str(error.value)
