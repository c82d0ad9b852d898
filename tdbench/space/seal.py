"""Sealed confirmations: replicate seeds from a secret key, so that only those who have it can train on them.

Definitions, section 5, Sealed confirmation. Every result names the key by its seal; the key itself stays in its file.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from tdbench.base.errors import UserError

HEADER = "tdbench key, version 1"
SEAL_DIGITS = 16
_WARNING = "keep it secret: whoever reads it can train on the confirmation"
_NEW_BYTES = 32
_LEAST_BYTES = 16
_MOST_FILE_BYTES = 4096


class Key:
    """A secret of at least 128 random bits. Its repr shows the seal, and it cannot be pickled.

    Attributes:
        seal: 16 hex digits that name the key and do not give it away.
    """

    __slots__ = ("_secret", "seal")

    def __init__(self, secret: bytes) -> None:
        if len(secret) < _LEAST_BYTES:
            raise UserError(f"a key must have at least {8 * _LEAST_BYTES} bits, got {8 * len(secret)}")
        self._secret = secret
        self.seal = hashlib.sha256(b"tdbench seal\n" + secret).hexdigest()[:SEAL_DIGITS]

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Key:
        """The key in a file of `write_new_key`. No error shows what the file holds.

        Raises:
            UserError: the file cannot be read, or it is no key.
        """
        try:
            with Path(path).open("rb") as file:
                content = file.read(_MOST_FILE_BYTES + 1)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"the key file {path} cannot be read: {reason}") from error
        lines = [line.strip() for line in content.decode("utf-8-sig", "replace").splitlines() if line.strip()]
        with contextlib.suppress(ValueError):  # of fromhex
            if len(content) <= _MOST_FILE_BYTES and len(lines) == 2 and lines[0].startswith(HEADER):
                return cls(bytes.fromhex(lines[1]))
        raise UserError(
            f"{path} is no key: expected a line that begins with {HEADER!r} and a line of hex digits; "
            "make a key with tdbench new-key FILE"
        )

    def replicate_seeds(self, space: str, replicates: int) -> NDArray[np.uint64]:
        """(replicates,) 64-bit seeds of the confirmation of the space with that identity."""
        digests = (
            hmac.digest(self._secret, f"tdbench confirmation\n{space}\n{j}".encode(), "sha256")
            for j in range(replicates)
        )
        return np.array([int.from_bytes(digest[:8], "little") for digest in digests], dtype=np.uint64)

    def __repr__(self) -> str:
        return f"Key(seal={self.seal})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a key cannot be pickled or copied, so that it stays in the process that read it")


def write_new_key(path: Path) -> Key:
    """Write a new key of 256 random bits to a file that only its owner may read; an existing file is never replaced.

    Raises:
        UserError: there is such a file already, or it cannot be written.
    """
    secret = secrets.token_bytes(_NEW_BYTES)
    text = f"{HEADER}; {_WARNING}\n{secret.hex()}\n"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise UserError(f"{path} exists, and a key is never replaced; give another file") from None
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error
    try:
        with open(descriptor, "w", encoding="ascii") as file:  # noqa: PTH123 - a descriptor
            file.write(text)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error
    return Key(secret)
