"""A contract in a process of its own, for `tdbench check`: a searcher or reduction that hangs or dies fails its check.

The child runs check after check and reports each; where one ends the child, or takes too long, the next child goes on
with the check after it.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any

from tdbench.base.errors import UserError, nearest
from tdbench.base.process import ChildProcess, die_with_parent
from tdbench.searchers.registry import load_plugins
from tdbench.testing.checks import CheckResult
from tdbench.testing.contract import Contract
from tdbench.testing.reduction_contract import ReductionContract
from tdbench.testing.searcher_contract import SearcherContract

CONTRACTS: tuple[type[Contract[Any, Any]], ...] = (SearcherContract, ReductionContract)
START_SECONDS = 120.0


class CheckRun:
    """The checks of `check_searcher` or `check_reduction`, run in processes of their own: iterate for the results.

    Where the first check takes too long, the others are not run.

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
        super().__init__("tdbench.testing.check_run", json.dumps([name, list(plugins), deterministic, first]))

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
        contract = _contract(name, plugins, deterministic)
        names = contract.checks()
        results = contract.results(names[first:])
    except UserError as error:
        send(error=str(error))
        return
    send(error="", names=names)
    for result in results:
        send(name=result.name, passed=result.passed, message=result.message)


def _contract(name: str, plugins: list[str], deterministic: bool) -> Contract[Any, Any]:
    """The contract that `name` has to hold, ready to be run on it."""
    found = load_plugins(plugins)
    kinds = [registrations.kind.what for registrations in found.kinds if registrations.is_claimed(name)]
    contracts = [contract for contract in CONTRACTS if contract.what in kinds]
    if len(contracts) > 1:
        raise UserError(
            f"{name!r} is both a {' and a '.join(kinds)}; check it in a test, with "
            f"{' or '.join(contract.__name__ for contract in contracts)} from tdbench.testing"
        )
    if not contracts:
        close = nearest(name, itertools.chain(*found.kinds))
        kinds = [contract.what for contract in CONTRACTS]
        raise UserError(f"unknown {' or '.join(kinds)} {name!r}{close}{found.failed_hint()}")
    contract = contracts[0]()
    if deterministic:
        if not isinstance(contract, SearcherContract):
            raise UserError(f"--deterministic is for searchers, and {name!r} is a {contract.what}")
        contract.deterministic = True
    return contract.of(name, plugins)


if __name__ == "__main__":
    main(int(sys.argv[1]), *json.loads(sys.argv[2]))
