"""A SQLite file whose transactions are all or nothing and whose errors can be read."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tdbench.errors import UserError


class Database:
    """A connection to a SQLite file, made with its folder where it is not there.

    Args:
        path: the file.
        what: how messages call it.

    Raises:
        UserError: here or in any method, where the file or its folder cannot be used.
    """

    def __init__(self, path: Path, what: str) -> None:
        self.path, self._what = path, what
        with self._readable_errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=60, isolation_level=None)

    def rows(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Execute one statement outside any transaction of ours, and fetch all it gives."""
        with self._readable_errors():
            return self._connection.execute(statement, values).fetchall()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """What is executed within is committed at the end, or, if anything raises, not at all."""
        with self._readable_errors():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def _readable_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:  # OperationalError (disk full, read-only, locked) among them
            raise UserError(f"{self._what} {self.path} cannot be used: {error}") from error
        except OSError as error:
            raise UserError(f"{self.path.parent} cannot be written: {error.strerror or error}") from error
