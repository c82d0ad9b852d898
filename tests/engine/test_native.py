"""The native kernel computes what `reference` defines, whatever is trained beside it and on whichever processor."""

from __future__ import annotations

import hashlib
import os
import platform
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from importlib.metadata import distributions
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tdbench.base.errors import UserError
from tdbench.engine import TrainingBatch, native
from tdbench.engine.native import NativeEngine
from tdbench.engine.networks import initial_weights
from tdbench.engine.protocol import TrainingProtocol
from tdbench.engine.reference import ReferenceEngine

REASON = native.unavailable()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))
ISAS = native.available_isas()
FEW = TrainingProtocol(steps=6)


class Batch:
    """B random trainings on N smooth random images of S sets."""

    def __init__(self, n, size, seed=0, sets=1):
        rng = np.random.default_rng(seed)
        noise = rng.standard_normal((sets, n, 3, 32, 32)) + 2 * rng.standard_normal((sets, n, 3, 1, 1))
        self.images = (noise + np.roll(noise, 1, -1) + np.roll(noise, 1, -2)).astype(np.float32) / 3
        self.labels = (rng.random((size, n)) < 0.3).astype(np.uint8)
        self.train = rng.random((size, n)) < 0.8
        self.train[:, 0], self.train[:, -1] = True, False
        self.seeds = rng.integers(0, 2**64, size, dtype=np.uint64)
        self.image_set = rng.integers(0, sets, size).astype(np.intp)

    def curves(self, engine, protocol=FEW, members=None):
        batch = TrainingBatch.checked(self.images, self.labels, self.train, self.seeds, self.image_set)
        return engine.curves(batch if members is None else batch.part(members), protocol)


def test_initial_weights_are_the_definition_bit_for_bit():
    seeds = np.array([0, 1, 2**32, 2**64 - 1], dtype=np.uint64)
    np.testing.assert_array_equal(native.initial_weights(seeds), initial_weights(seeds))


@pytest.mark.parametrize("isa", ISAS)
def test_curves_agree_with_reference(isa):
    batch = Batch(n=21, size=4)
    expected = batch.curves(ReferenceEngine(threads=1))
    np.testing.assert_allclose(batch.curves(NativeEngine(isa=isa)), expected, rtol=0, atol=2e-5)


BITS = {  # of `fixed_batch` for 13 and for 101 images, as 0.1.0 trained it
    "base": ("85901fe3a608ad93", "d3aa08b71bcd5347"),
    "avx2": ("03d617150bf0be43", "bb8a656c0111c44e"),
    "avx512": ("03d617150bf0be43", "bb8a656c0111c44e"),
}


def fixed_batch(n, size):
    pixels = (np.arange(2 * n * 3072) * 2654435761 % 1000 / 500 - 1).astype(np.float32).reshape(2, n, 3, 32, 32)
    image, training = np.arange(n), np.arange(size)[:, None]
    labels, train = (image + training) % 3 == 0, (image + training) % 5 != 1
    return TrainingBatch.checked(pixels, labels, train, np.arange(size), training[:, 0] % 2)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the bits are those of x86_64")
@pytest.mark.parametrize("isa", ISAS)
def test_ordinary_trainings_have_the_bits_that_they_always_had(isa):
    trained = [NativeEngine(isa=isa).train(fixed_batch(n, size=5), TrainingProtocol(steps=8)) for n in (13, 101)]
    digests = [hashlib.sha256(t.curves.tobytes() + t.weights.tobytes()).hexdigest()[:16] for t in trained]
    assert digests == list(BITS[isa])


@pytest.mark.parametrize("lr", [1e-4, 1e-2])
def test_learning_rate_means_what_it_means_to_adam(lr):
    batch, protocol = Batch(n=12, size=2), TrainingProtocol(steps=5, lr=lr)
    expected = batch.curves(ReferenceEngine(threads=1), protocol)
    np.testing.assert_allclose(batch.curves(NativeEngine(), protocol), expected, rtol=1e-3, atol=1e-4)


@settings(max_examples=8, deadline=None)
@given(n=st.integers(2, 70), size=st.integers(1, 5), seed=st.integers(0, 2**32))
def test_any_number_of_images_and_any_mask(n, size, seed):
    batch, protocol = Batch(n, size, seed), TrainingProtocol(steps=5)
    expected = batch.curves(ReferenceEngine(threads=1), protocol)
    np.testing.assert_allclose(batch.curves(NativeEngine(), protocol), expected, rtol=1e-3, atol=1e-4)


def test_generalization_level_after_a_whole_training_agrees_with_reference():
    batch, protocol = Batch(n=15, size=20), TrainingProtocol(steps=60)

    def level(curves):
        return np.median(np.lib.stride_tricks.sliding_window_view(curves, 5, axis=1), axis=2).min(axis=1)

    difference = level(batch.curves(NativeEngine(), protocol)) - level(
        batch.curves(ReferenceEngine(threads=1), protocol)
    )
    assert np.mean(np.abs(difference) < 0.005) >= 0.95


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("isa", ISAS)
def test_alone_or_among_others_a_training_has_the_same_bits(isa, threads):
    batch = Batch(n=11, size=9)
    together = batch.curves(NativeEngine(threads=2, isa=isa))
    alone = batch.curves(NativeEngine(threads, isa=isa), members=slice(4, 5))
    np.testing.assert_array_equal(alone[0], together[4])


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_order_in_the_batch_changes_no_bit(threads):
    batch = Batch(n=11, size=7)
    order = np.array([3, 0, 6, 1, 5, 2, 4])
    shuffled = batch.curves(NativeEngine(threads), members=order)
    np.testing.assert_array_equal(shuffled, batch.curves(NativeEngine(threads=2))[order])


@pytest.mark.parametrize("n", [2, 3, 17, 50])
def test_a_team_of_threads_changes_no_bit(n):
    batch = Batch(n, size=1)
    np.testing.assert_array_equal(batch.curves(NativeEngine(threads=7)), batch.curves(NativeEngine(threads=1)))


def test_each_training_uses_its_own_image_set():
    batch = Batch(n=9, size=6, sets=3)
    together = batch.curves(NativeEngine(threads=2))
    for b, s in enumerate(batch.image_set):
        m = slice(b, b + 1)
        alone = TrainingBatch.checked(batch.images[s], batch.labels[m], batch.train[m], batch.seeds[m])
        np.testing.assert_array_equal(together[b], NativeEngine(threads=1).curves(alone, FEW)[0])


@pytest.mark.parametrize("value", [0.0, 1.5])
def test_equal_images_are_trained_like_reference_trains_them(value):
    batch = Batch(n=10, size=3)
    batch.images = np.full_like(batch.images, value)
    expected = batch.curves(ReferenceEngine(threads=1))
    np.testing.assert_allclose(batch.curves(NativeEngine()), expected, rtol=0, atol=2e-5)


def test_dead_relus_leave_a_finite_constant_curve():
    batch, protocol = Batch(n=8, size=2), TrainingProtocol(steps=12, lr=1.0)
    batch.images = -np.abs(batch.images) * 50
    expected = batch.curves(ReferenceEngine(threads=1), protocol)
    dead = np.abs(np.diff(expected[:, -4:], axis=1)) < 1
    assert np.isfinite(batch.curves(NativeEngine(), protocol)[:, -4:][:, 1:][dead]).all()


@pytest.mark.parametrize("isa", ISAS)
def test_a_diverged_training_has_a_non_finite_curve(isa):
    batch = Batch(n=8, size=2)
    curves = batch.curves(NativeEngine(isa=isa), TrainingProtocol(steps=5, lr=1e30))
    assert np.isfinite(curves[:, 0]).all()
    assert not np.isfinite(curves[:, 2:]).any()


def test_a_diverged_training_leaves_its_neighbours_alone():
    batch = Batch(n=8, size=5, sets=2)
    batch.image_set = np.array([0, 0, 1, 0, 0], dtype=np.intp)
    healthy = batch.curves(NativeEngine(threads=2))
    batch.images[1] = np.inf
    mixed = batch.curves(NativeEngine(threads=2))
    assert not np.isfinite(mixed[2]).any()
    others = [0, 1, 3, 4]
    np.testing.assert_array_equal(mixed[others], healthy[others])


def test_instruction_sets_agree():
    batch = Batch(n=13, size=3)
    base = batch.curves(NativeEngine(isa="base"))
    for isa in ISAS:
        np.testing.assert_allclose(batch.curves(NativeEngine(isa=isa)), base, rtol=0, atol=2e-5)


def test_instruction_set_can_be_forced_and_is_recorded(monkeypatch):
    monkeypatch.setenv(native.ISA_VARIABLE, "base")
    assert NativeEngine().detail == "lanes-base"


def test_an_instruction_set_that_does_not_run_here_is_refused():
    with pytest.raises(UserError, match="sve9"):
        NativeEngine(isa="sve9")


def test_an_absent_kernel_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(native, "_file", lambda isa, folder=None: None)
    monkeypatch.delenv(native.ISA_VARIABLE, raising=False)
    assert "install g++ or clang" in str(native.unavailable())


def test_an_empty_batch_gives_an_empty_answer():
    assert Batch(n=4, size=0).curves(NativeEngine()).shape == (0, FEW.steps)


def test_ctrl_c_stops_within_a_training_step():
    batch = Batch(n=50, size=64)
    interrupt = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    interrupt.start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        batch.curves(NativeEngine(), TrainingProtocol(steps=20_000))
    assert time.monotonic() - start < 5


def test_the_gil_is_free_while_the_kernel_runs():
    batch = Batch(n=50, size=8)
    beats, stop = [], threading.Event()

    def count():
        while not stop.wait(0.01):
            beats.append(1)

    counter = threading.Thread(target=count)
    counter.start()
    batch.curves(NativeEngine(), TrainingProtocol(steps=60))
    stop.set()
    counter.join()
    assert len(beats) >= 3


def test_peak_is_measured():
    assert native.peak_gflops(1, seconds=0.02) > 0.5


def grown_by(calls, batch, protocol):
    engine = NativeEngine(threads=2)
    for _ in range(3):
        batch.curves(engine, protocol)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(calls):
        batch.curves(engine, protocol)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def test_memory_does_not_grow_with_calls():
    assert grown_by(100, Batch(n=2, size=3, sets=2), TrainingProtocol(steps=5)) < 20


@pytest.mark.long
def test_memory_does_not_grow_over_20000_trainings():
    assert grown_by(100, Batch(n=5, size=200), TrainingProtocol(steps=5)) < 20


@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_kernel_is_clean_under_sanitizers(tmp_path, sanitizer):
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    options = ["-std=c++17", "-O1", "-g", "-ffp-contract=off", f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all"]
    empty = tmp_path / "empty.cpp"
    empty.write_text("int main() {}")
    probe = subprocess.run([compiler, *options, empty, "-o", tmp_path / "empty"], capture_output=True)
    if probe.returncode != 0 or subprocess.run([tmp_path / "empty"], capture_output=True).returncode != 0:
        pytest.skip(f"no runtime for -fsanitize={sanitizer}")
    isa = {"avx512": ["-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mfma"], "avx2": ["-mavx2", "-mfma"]}
    source = Path(__file__).with_name("sanitize.cpp")
    program = tmp_path / "sanitize"
    subprocess.run([compiler, *options, *isa.get(ISAS[-1], []), source, "-pthread", "-o", program], check=True)
    done = subprocess.run([program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_install_without_a_compiler_succeeds_and_says_so(tmp_path):
    code = (
        "import sys; sys.argv = ['setup.py', 'build_ext', '--build-lib', sys.argv[1], '--build-temp', sys.argv[1]];"
        "exec(open('setup.py').read(), {'__name__': '__main__', '__file__': 'setup.py'})"
    )
    root = Path(__file__).parents[2]
    if not (root / "setup.py").exists():
        pytest.skip("not a source checkout")
    environment = {"PATH": str(tmp_path), "CC": "no-such-compiler", "CXX": "no-such-compiler"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "build")], cwd=root, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.glob("build/**/_lanes*.so"))


def test_a_clone_without_a_kernel_beside_an_installation_with_one_is_named(tmp_path, monkeypatch):
    """As after `pip install .`, where Python in the clone imports the clone."""
    installed = tmp_path / "installed"
    (installed / "tdbench-0.1.0.dist-info").mkdir(parents=True)
    (installed / "tdbench-0.1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: tdbench\n")
    (installed / "tdbench" / "engine").mkdir(parents=True)
    monkeypatch.setattr(native, "HERE", tmp_path / "clone" / "tdbench" / "engine")
    monkeypatch.setattr(native, "distributions", lambda name: distributions(name=name, path=[str(installed)]))
    monkeypatch.delenv(native.ISA_VARIABLE, raising=False)
    assert "install g++" in native.unavailable()
    (installed / "tdbench" / "engine" / f"_lanes_base{native.EXTENSION_SUFFIXES[0]}").touch()
    assert f"imports tdbench from {tmp_path / 'clone'}," in native.unavailable()


def test_training_without_the_kernel_says_once_that_it_is_slow(monkeypatch, capsys):
    from tdbench.engine import engine as engines

    monkeypatch.setattr(native, "unavailable", lambda: "it is not built")
    engines._say_once.cache_clear()
    assert engines.make_engine("auto", "cpu").name == engines.make_engine("auto", "cpu").name == "batched"
    assert capsys.readouterr().err.count("about 9 times faster: it is not built") == 1
    engines._say_once.cache_clear()
