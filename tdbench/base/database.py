"""A SQLite file: a transaction is written whole or not at all, and an error is a UserError that names the file."""

from __future__ import annotations

import os
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
        path: the file. It is created, with its folder, if it does not exist.
        what: the name of the file in messages.
        read_only: only read an existing file. Its folder need not be writable.

    Raises:
        UserError: here or in any method, if the file or its folder cannot be used.
    """

    def __init__(self, path: Path, what: str, *, read_only: bool = False) -> None:
        self.path, self._what = path, what
        with self._readable_errors():
            if not read_only:
                path.parent.mkdir(parents=True, exist_ok=True)
                if not path.exists() and not os.access(path.parent, os.W_OK):
                    raise UserError(f"{what} {path} cannot be created: {path.parent} is read-only")
            self._connection = _reader(path) if read_only else _connect(str(path))

    def rows(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Execute one statement outside a transaction, and return all rows of its result."""
        with self._readable_errors():
            return self._connection.execute(statement, values).fetchall()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """The statements of the block are committed together at its end. If the block raises, none is.

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

    To read a file in WAL mode, SQLite needs two files beside it. If they do not exist and it cannot create them, no
    process is writing, so the file can be read as one that does not change.
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
