"""Keys of sealed confirmations: the derivation that the definitions give, their files, and that they do not leak."""

from __future__ import annotations

import copy
import hashlib
import hmac
import pickle
import re
import stat
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT, called, one_error
from hypothesis import given
from hypothesis import strategies as st

from tdbench import TaskSpace, UserError
from tdbench.settings import Options
from tdbench.space.seal import HEADER, Key, write_new_key

SECRET = bytes(range(32))
IDENTITY = "0123456789ab"
CHEAP = {"n": 10, "steps": 5, "engine": "reference", "device": "cpu"}


def key_file(path: Path, secret: bytes = SECRET) -> Path:
    path.write_text(f"{HEADER}\n{secret.hex()}\n")
    return path


def documented() -> dict[str, str]:
    """The test vector of the definitions, section 5."""
    text = (ROOT / "docs" / "definitions.md").read_text(encoding="utf-8")
    part = text.partition("**Sealed confirmation.**")[2].partition("## 6.")[0]
    assert "000102...1f (32 bytes)" in part
    assert IDENTITY in part
    return dict(re.findall(r"^\| (seal|seed of replicate \d) \| `(\w+)` \|$", part, flags=re.M))


def test_the_test_vector_of_the_definitions_holds() -> None:
    key = Key(SECRET)
    seeds = key.replicate_seeds(IDENTITY, 3)
    assert seeds.dtype == np.uint64
    assert documented() == {"seal": key.seal, **{f"seed of replicate {j}": str(seeds[j]) for j in range(3)}}


@given(st.binary(min_size=16, max_size=64), st.text("0123456789abcdef", min_size=12, max_size=12))
def test_seeds_and_seal_are_what_the_definitions_say_for_any_key_and_space(secret: bytes, identity: str) -> None:
    key = Key(secret)
    for j, seed in enumerate(key.replicate_seeds(identity, 4).tolist()):
        digest = hmac.new(secret, b"tdbench confirmation\n" + identity.encode() + b"\n%d" % j, hashlib.sha256).digest()
        assert seed == int.from_bytes(digest[:8], "little")
    assert key.seal == hashlib.sha256(b"tdbench seal\n" + secret).hexdigest()[:16]


def test_keys_spaces_and_replicates_draw_seeds_of_their_own() -> None:
    seeds = [Key(secret).replicate_seeds(space, 64) for secret in (SECRET, bytes(32)) for space in (IDENTITY, "b" * 12)]
    assert len(np.unique(np.concatenate(seeds))) == 4 * 64


def test_a_space_confirms_on_the_replicates_of_the_key(tmp_path: Path) -> None:
    space = TaskSpace(**CHEAP)
    labels = space.random_labelings(2)
    sealed = space.confirm(labels, 3, key=Key(SECRET))
    np.testing.assert_array_equal(space.confirm(labels, 3, key=key_file(tmp_path / "key")), sealed)
    np.testing.assert_array_equal(space.confirm(labels[1], 2, key=Key(SECRET)), sealed[1, :2])
    assert not np.isin(sealed, space.confirm(labels, 3)).any()
    assert not np.isin(sealed, space.confirm(labels, 3, key=Key(bytes(32)))).any()
    np.testing.assert_array_equal(
        space.confirm_seeds(2, 3, Key(SECRET))[1], Key(SECRET).replicate_seeds(space.identity, 3)
    )


# --- files


def test_new_key_writes_random_bits_that_only_the_owner_may_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        code, out, _ = called(capsys, "new-key", tmp_path / name)
        assert code == 0
        assert Key.read(tmp_path / name).seal in out
        header, secret = (tmp_path / name).read_text().splitlines()
        assert header.startswith(HEADER)
        assert len(bytes.fromhex(secret)) * 8 == 256
        assert secret not in out
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    assert (tmp_path / "a").read_text() != (tmp_path / "b").read_text()


def test_new_key_never_replaces_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = key_file(tmp_path / "key")
    before = path.read_bytes()
    code, _, error = called(capsys, "new-key", path)
    assert "exists, and a key is never replaced" in one_error(code, error)
    assert path.read_bytes() == before
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    code, _, error = called(capsys, "new-key", tmp_path / "link")
    assert "exists" in one_error(code, error)
    code, _, error = called(capsys, "new-key", tmp_path / "nowhere" / "key")
    assert "cannot be written" in one_error(code, error)


@pytest.mark.parametrize("text", ["{h}\r\n{k}\r\n", "\ufeff{h}\n\n{k}", "{h}; any words\n  {K}  \n"])
def test_a_key_file_may_have_been_through_an_editor(tmp_path: Path, text: str) -> None:
    path = tmp_path / "key"
    filled = text.format(h=HEADER, k=SECRET.hex(), K=SECRET.hex().upper())
    path.write_text(filled, encoding="utf-8", newline="")
    assert Key.read(path).seal == Key(SECRET).seal


NOT_KEYS = {
    "empty": b"",
    "no header": SECRET.hex().encode(),
    "header alone": HEADER.encode(),
    "no hex": HEADER.encode() + b"\n" + SECRET.hex().encode()[:-1] + b"z",
    "half a byte": HEADER.encode() + b"\n" + SECRET.hex().encode()[:-1],
    "more lines": HEADER.encode() + b"\n" + SECRET.hex().encode() + b"\nmore",
    "binary": SECRET * 8 + b"\xff",
    "endless": HEADER.encode() + b"\n" + b"ab" * 10_000,
}


@pytest.mark.parametrize("content", NOT_KEYS.values(), ids=NOT_KEYS)
def test_what_is_no_key_is_refused_without_showing_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    with pytest.raises(UserError, match="is no key") as error:
        Key.read(path)
    assert SECRET.hex()[:8] not in str(error.value)


def test_a_short_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least 128 bits, got 120"):
        Key.read(key_file(tmp_path / "key", SECRET[:15]))
    assert Key.read(key_file(tmp_path / "key", SECRET[:16])).seal == Key(SECRET[:16]).seal


@pytest.mark.parametrize("name", ["missing", ".", "a\x00b"])
def test_a_key_file_that_cannot_be_read_is_one_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        Key.read(tmp_path / name)


def test_a_new_key_reads_back(tmp_path: Path) -> None:
    assert write_new_key(tmp_path / "key").seal == Key.read(tmp_path / "key").seal


# --- the secret stays where it is


def test_neither_a_repr_nor_a_pickle_nor_a_copy_holds_the_secret(tmp_path: Path) -> None:
    options = Options(sealed=key_file(tmp_path / "key"))
    assert options.key is not None
    for shown in (repr(options), repr(options.key), str(options.key)):
        assert SECRET.hex() not in shown
        assert repr(SECRET) not in shown
    for take in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match="a key cannot be pickled"):
            take(options.key)


def test_the_key_file_is_read_once(tmp_path: Path) -> None:
    path = key_file(tmp_path / "key")
    options = Options(sealed=path)
    assert options.seal == Key(SECRET).seal
    path.unlink()
    assert options.seal == Key(SECRET).seal
