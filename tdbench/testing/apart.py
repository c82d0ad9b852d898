"""A contract in a process of its own, for `tdbench check`: a searcher or reduction that hangs or dies fails its check.

The child runs check after check and reports each; where one ends the child, or takes too long, the next child goes on
with the check after it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any

from tdbench.base.errors import UserError, nearest
from tdbench.base.process import ChildProcess, die_with_parent
from tdbench.searchers.registry import load_plugins
from tdbench.testing import reduction_contract
from tdbench.testing import searcher_contract as testing
from tdbench.testing.checks import CheckResult

START_SECONDS = 120.0


class check_apart:
    """Like `check_searcher` or `check_reduction`, whichever `name` is, out of its reach: iterate for the results.

    What does not get through the very first check in time is not put through the others.

    Attributes:
        names: of the checks in the contract.
    """

    def __init__(
        self, name: str, plugins: Sequence[str] = (), *, timeout: float = 120.0, deterministic: bool = False
    ) -> None:
        """Load the plugins and find `name`.

        Args:
            timeout: seconds that one check may take.
            deterministic: nothing in the searcher is random.

        Raises:
            UserError: there is nothing of that name, or the plugins end the interpreter or do not load in time.
        """
        self._arguments = (name, plugins, deterministic)
        self._timeout = timeout
        with _Child(*self._arguments, first=0) as child:
            self.names = child.start()

    def __iter__(self) -> Iterator[CheckResult]:
        done = 0
        while done < len(self.names):
            with _Child(*self._arguments, first=done) as child:
                child.start()
                failure = ""
                while done < len(self.names) and not failure:
                    try:
                        yield CheckResult(**child.answer(self._timeout))
                    except TimeoutError:
                        failure = f"it did not end within {self._timeout:g} s"
                        yield CheckResult(self.names[done], False, failure)
                        if done == 0:
                            return
                    except EOFError:
                        failure = f"its process {child.epitaph()}"
                        yield CheckResult(self.names[done], False, failure)
                    done += 1


class _Child(ChildProcess):
    """The parent's end: a process that runs the contract from check number `first` on."""

    def __init__(self, name: str, plugins: Sequence[str], deterministic: bool, first: int) -> None:
        super().__init__("tdbench.testing.apart", json.dumps([name, list(plugins), deterministic, first]))

    def __enter__(self) -> _Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> tuple[str, ...]:
        """The names of all checks in the contract."""
        try:
            found = self.answer(START_SECONDS)
        except TimeoutError:
            raise UserError(f"loading the plugins did not end within {START_SECONDS:g} s") from None
        except EOFError:
            raise UserError(f"while the plugins were loaded, the process {self.epitaph()}") from None
        if found["error"]:
            raise UserError(found["error"])
        return tuple(found["names"])

    def answer(self, timeout: float) -> dict[str, Any]:
        """The next message. Raises TimeoutError where none comes in time, EOFError where the process has ended."""
        if not self.connection.poll(timeout):
            raise TimeoutError
        try:
            message: dict[str, Any] = json.loads(self.connection.recv_bytes())
        except ConnectionError:
            raise EOFError from None
        return message


def main(descriptor: int, name: str, plugins: list[str], deterministic: bool, first: int) -> None:
    """The child's end: first it says which checks there are for what has that name, then what came of each."""
    die_with_parent()
    connection = Connection(descriptor)

    def send(**message: Any) -> None:
        connection.send_bytes(json.dumps(message).encode())

    try:
        names, results = _contract(name, plugins, deterministic, first)
    except UserError as error:
        send(error=str(error))
        return
    send(error="", names=names)
    for result in results:
        send(name=result.name, passed=result.passed, message=result.message)


def _contract(
    name: str, plugins: list[str], deterministic: bool, first: int
) -> tuple[list[str], Iterator[CheckResult]]:
    """Names of all checks of the contract that `name` has to hold, and their results from number `first` on."""
    found = load_plugins(plugins)
    family = name.partition(":")[0]
    is_searcher = bool({name, family} & {*found.searchers, *found.conflicts})
    is_reduction = family in found.reductions or family in found.reduction_conflicts
    if is_searcher and is_reduction:
        raise UserError(
            f"{name!r} is both a searcher and a reduction; check it in a test, with SearcherContract or "
            "ReductionContract from tdbench.testing.searcher_contract"
        )
    if not is_searcher and not is_reduction:
        close = nearest(name, (*found.searchers, *found.reductions))
        raise UserError(f"unknown searcher or reduction {name!r}{close}{found.failed_hint()}")
    if is_reduction:
        if deterministic:
            raise UserError(f"--deterministic is for searchers, and {name!r} is a reduction")
        return _names(reduction_contract.CHECKS), testing.check_reduction(
            name, plugins, checks=reduction_contract.CHECKS[first:]
        )
    return _names(testing.CHECKS), testing.check_searcher(
        name, plugins, deterministic=deterministic, checks=testing.CHECKS[first:]
    )


def _names(checks: Sequence[Callable[..., None]]) -> list[str]:
    return [check.__name__ for check in checks]


if __name__ == "__main__":
    main(int(sys.argv[1]), *json.loads(sys.argv[2]))
