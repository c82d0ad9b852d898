"""A contract in a process of its own, for `tdbench check`: a searcher or reduction that hangs or dies fails its check.

The child runs check after check and reports each; where one ends the child, or takes too long, the next child goes on
with the check after it.
"""

from __future__ import annotations

import itertools
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from tdbench.base.channel import BadMessage, Channel, ChannelClosed, Message
from tdbench.base.errors import UserError, nearest
from tdbench.base.process import ChildProcess
from tdbench.base.text import plain_line
from tdbench.searchers.catalogue import find_plugins
from tdbench.searchers.loading import load_sources
from tdbench.searchers.registry import PluginSource
from tdbench.testing.checks import CheckResult
from tdbench.testing.contract import Contract
from tdbench.testing.reduction_contract import ReductionContract
from tdbench.testing.searcher_contract import SearcherContract

CONTRACTS: tuple[type[Contract[Any, Any]], ...] = (SearcherContract, ReductionContract)
START_SECONDS = 120.0
MOST_DETAILS = 10  # lines beside it
MOST_MESSAGE = 2000  # characters of what a check says


class CheckRun:
    """The checks of `check_searcher` or `check_reduction`, run in processes of their own: iterate for the results.

    Where the first check takes too long, the others are not run.

    Attributes:
        names: of the checks in the contract.
    """

    def __init__(
        self, name: str, plugins: Sequence[str] = (), *, timeout: float = 120.0, deterministic: bool = False
    ) -> None:
        """Find `name` among what is installed and these plugins.

        Args:
            timeout: seconds that one check may take.
            deterministic: nothing in the searcher is random.

        Raises:
            UserError: there is nothing of that name, or one of the plugins cannot be loaded.
        """
        found = find_plugins(plugins, searchers=[name], extra_must_load=True)
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
        contract = contracts[0]
        if deterministic and contract is not SearcherContract:
            raise UserError(f"--deterministic is for searchers, and {name!r} is a {contract.what}")
        family = name.partition(":")[0]
        if contract is SearcherContract:
            source = found.searcher(name)[0].source
        else:
            found.reductions.refuse_conflict(family)
            source = found.reductions[family].source
        self.names = contract.checks()
        self._start = {"kind": contract.what, "name": name, "source": asdict(source), "deterministic": deterministic}
        self._timeout = timeout

    def __iter__(self) -> Iterator[CheckResult]:
        done = 0
        while done < len(self.names):
            child = ChildProcess("tdbench.testing.check_run", most_text=1 << 20)
            try:
                child.channel.send(Message({**self._start, "first": done}))
                self._first_word(child)
                failure = ""
                while done < len(self.names) and not failure:
                    result = self._answer(child, self.names[done])
                    failure = "" if isinstance(result, CheckResult) else result
                    yield result if isinstance(result, CheckResult) else CheckResult(self.names[done], False, failure)
                    done += 1
            finally:
                child.kill()
            if failure and done == 1 and failure.startswith("it did not end"):
                return

    def _first_word(self, child: ChildProcess) -> None:
        try:
            found = child.channel.receive_waiting(START_SECONDS).values
        except TimeoutError:
            raise UserError(f"loading the plugin did not end within {START_SECONDS:g} s") from None
        except (ChannelClosed, BadMessage):
            raise UserError(f"while the plugin was loaded, the process {child.epitaph()}") from None
        if found.get("error"):
            raise UserError(plain_line(found["error"]))

    def _answer(self, child: ChildProcess, name: str) -> CheckResult | str:
        """What came of the check of that name, or how its process failed."""
        try:
            values = child.channel.receive_waiting(self._timeout).values
        except TimeoutError:
            return f"it did not end within {self._timeout:g} s"
        except (ChannelClosed, BadMessage):
            return f"its process {child.epitaph()}"
        message = plain_line(values.get("message", ""), MOST_MESSAGE)
        passed = values.get("name") == name and values.get("passed") is True
        details = values.get("details")
        lines = details[:MOST_DETAILS] if isinstance(details, list) else []
        return CheckResult(name, passed, message, tuple(plain_line(line, MOST_MESSAGE) for line in lines))


def main(descriptor: int) -> None:
    """The child's end: first whether there is what it has to check, then what came of each check."""
    channel = Channel(socket.socket(fileno=descriptor))
    start = channel.receive_waiting().values
    try:
        contract = next(contract for contract in CONTRACTS if contract.what == start["kind"])()
        if isinstance(contract, SearcherContract):
            contract.deterministic = start["deterministic"]
        contract = contract.among(load_sources([PluginSource(**start["source"])]), start["name"])
        results = contract.results(contract.checks()[start["first"] :])
    except UserError as error:
        channel.send_waiting(Message({"error": str(error)}))
        return
    channel.send_waiting(Message({"error": ""}))
    for result in results:
        values = {"name": result.name, "passed": result.passed, "message": plain_line(result.message, MOST_MESSAGE)}
        details = [plain_line(line, MOST_MESSAGE) for line in result.details[:MOST_DETAILS]]
        channel.send_waiting(Message({**values, "details": details}))
    os._exit(0)  # threads and exit handlers of the plugin are no concern of ours


if __name__ == "__main__":
    main(int(sys.argv[1]))
