"""A SQLite file whose transactions are all or nothing and whose errors can be read."""

from __future__ import annotations

import sqlite3
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tdbench.base.errors import UserError


class Database:
    """A connection to a SQLite file.

    Args:
        path: the file; it is made, with its folder, where it is not there.
        what: how messages call it.
        read_only: only read a file that is there, in a folder that need not be writable.

    Raises:
        UserError: here or in any method, where the file or its folder cannot be used.
    """

    def __init__(self, path: Path, what: str, *, read_only: bool = False) -> None:
        self.path, self._what = path, what
        with self._readable_errors():
            if not read_only:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = _reader(path) if read_only else _connect(str(path))

    def rows(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Execute one statement outside any transaction of ours, and fetch all it gives."""
        with self._readable_errors():
            return self._connection.execute(statement, values).fetchall()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """What is executed within is committed at the end, or, if anything raises, not at all.

        A transaction within another one is part of it.
        """
        with self._readable_errors():
            if self._connection.in_transaction:
                yield self._connection
                return
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


def _connect(address: str) -> sqlite3.Connection:
    return sqlite3.connect(address, timeout=60, isolation_level=None, uri=address.startswith("file:"))


def _reader(path: Path) -> sqlite3.Connection:
    """A connection that changes nothing in the file.

    SQLite reads a file in WAL mode with the help of two files beside it. Where it cannot make them, and there are
    none, nobody is writing, and the file can be read as one that does not change.
    """
    address = f"file:{urllib.parse.quote(str(path.resolve()))}"
    connection = _connect(f"{address}?mode=rw")
    try:
        connection.execute("PRAGMA query_only = ON")
        connection.execute("SELECT 1 FROM sqlite_master")
    except sqlite3.OperationalError:
        connection.close()
        if path.with_name(f"{path.name}-wal").exists():
            raise
        return _connect(f"{address}?mode=ro&immutable=1")
    return connection
