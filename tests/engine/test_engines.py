"""What every engine promises, and that each computes what the definition says."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import evaluate
from torch.nn import functional as F

from tdbench.base.errors import UserError
from tdbench.base.rng import random_labelings
from tdbench.engine import TrainingBatch, make_engine, native
from tdbench.engine import engine as engines
from tdbench.engine.batched import BatchedEngine, drawn_weights
from tdbench.engine.networks import LAYERS, initial_weights
from tdbench.engine.protocol import TrainingProtocol, train_masks
from tdbench.engine.reference import Network, ReferenceEngine, network
from tdbench.space.executor import Request
from tdbench.space.image_set import standardize
from tdbench.space.score import generalization_level
from tdbench.space.sources import load_source
from tdbench.space.task_space import TaskSpace

FEW = TrainingProtocol(steps=6)


@pytest.fixture(params=["reference", "batched", "native"])
def engine(request):
    if request.param == "native" and native.unavailable() is not None:
        pytest.skip(str(native.unavailable()))
    return make_engine(request.param, "cpu", 1)


@pytest.fixture(params=["batched", "native"])
def fast(request):
    if request.param == "native" and native.unavailable() is not None:
        pytest.skip(str(native.unavailable()))
    return make_engine(request.param, "cpu", 1)


class Batch:
    """B trainings on N digits of S sets, splits and seeds as in a run."""

    def __init__(self, n=15, size=4, sets=1, seed=0):
        pixels = load_source("digits").images
        chosen = np.random.default_rng(seed).permutation(len(pixels))[: sets * n].reshape(sets, n)
        self.images = np.stack([standardize(pixels[index]) for index in chosen])
        self.labels = random_labelings(size, n, n // 3, seed)
        self.seeds = np.arange(size, dtype=np.uint64) + np.uint64(2**40 + seed)
        self.train = train_masks(self.labels, self.seeds, "stratified")
        self.image_set = np.arange(size) % sets
        self.weights = None

    def checked(self):
        arrays = (self.images, self.labels, self.train, self.seeds, self.image_set)
        return TrainingBatch.checked(*arrays, weights=self.weights)

    def curves(self, engine, protocol=FEW, members=slice(None)):
        return engine.curves(self.checked().part(members), protocol)


# by the definition


def convolution(x, weight, bias):
    out = np.zeros((len(x), len(weight), x.shape[2] - 4, x.shape[3] - 4))
    for dy in range(5):
        for dx in range(5):
            patch = x[:, :, dy : dy + out.shape[2], dx : dx + out.shape[3]]
            out += np.einsum("nchw,oc->nohw", patch, weight[:, :, dy, dx])
    return out + bias[:, None, None]


def relu_pool(x):
    n, c, h, w = x.shape
    return np.maximum(x, 0).reshape(n, c, h // 2, 2, w // 2, 2).max(axis=(3, 5))


def losses_by_definition(images, labels, seed):
    """(N,) cross-entropy in float64 of the freshly initialized network."""
    flat, parameters = initial_weights(np.array([seed], dtype=np.uint64))[0].astype(np.float64), {}
    for layer in LAYERS:
        parameters[layer.name], flat = flat[: layer.size].reshape(layer.shape), flat[layer.size :]
    p = parameters
    x = relu_pool(convolution(images.astype(np.float64), p["conv1.weight"], p["conv1.bias"]))
    x = relu_pool(convolution(x, p["conv2.weight"], p["conv2.bias"])).reshape(len(images), 400)
    x = np.maximum(x @ p["fc1.weight"].T + p["fc1.bias"], 0)
    x = np.maximum(x @ p["fc2.weight"].T + p["fc2.bias"], 0)
    logits = x @ p["fc3.weight"].T + p["fc3.bias"]
    return np.array([math.log(sum(math.exp(v) for v in row)) - row[y] for row, y in zip(logits, labels, strict=True)])


def test_first_entry_is_the_validation_loss_of_the_untrained_network(engine):
    batch = Batch(n=12, size=3)
    for row, y, train, seed in zip(batch.curves(engine), batch.labels, batch.train, batch.seeds, strict=True):
        expected = losses_by_definition(batch.images[0], y, seed)[~train].mean()
        assert row[0] == pytest.approx(expected, abs=2e-6)


def test_reference_is_a_plain_loop_with_pytorchs_adam():
    batch = Batch(n=12, size=1)
    x, y = torch.tensor(batch.images[0]), torch.tensor(batch.labels[0]).long()
    train = torch.tensor(batch.train[0])
    net, expected = network(int(batch.seeds[0])), []
    optimizer = torch.optim.Adam(net.parameters(), lr=0.002)
    for _ in range(8):
        with torch.no_grad():
            expected.append(float(F.cross_entropy(net(x[~train]), y[~train])))
        optimizer.zero_grad()
        F.cross_entropy(net(x[train]), y[train]).backward()
        optimizer.step()
    np.testing.assert_allclose(batch.curves(ReferenceEngine(), TrainingProtocol(8, 0.002))[0], expected, rtol=1e-5)


def test_the_network_has_the_parameters_of_the_definition():
    assert sum(p.numel() for p in Network().parameters()) == 61_326
    assert [(n, tuple(p.shape)) for n, p in Network().named_parameters()] == [(x.name, x.shape) for x in LAYERS]


# agreement with the reference


def test_curves_agree_with_reference_after_a_few_steps(fast):
    batch = Batch(n=10, size=18)
    np.testing.assert_allclose(batch.curves(fast), batch.curves(ReferenceEngine()), rtol=0, atol=2e-5)


@pytest.mark.parametrize("lr", [1e-4, 1e-2])
def test_learning_rate_means_what_it_means_to_adam(fast, lr):
    batch, protocol = Batch(size=3), TrainingProtocol(6, lr)
    np.testing.assert_allclose(
        batch.curves(fast, protocol), batch.curves(ReferenceEngine(), protocol), rtol=1e-3, atol=1e-4
    )


def check_taskness_agrees(fast, n, trainings):
    """Taskness over 100 steps: within 0.01 on at least 95 % of random trainings, and no bias in the mean."""
    space = TaskSpace(n=n, ratio=1 if n < 20 else 4)
    labels = space.random_labelings(trainings)
    seeds = space.told_seeds(np.arange(trainings), 1, "fresh", 0)
    values = [evaluate([Request(space, labels, seeds)], e)[0][:, 0] for e in (fast, make_engine("reference", "cpu", 1))]
    difference = values[0] - values[1]
    assert np.mean(np.abs(difference) <= 0.01) >= 0.95
    assert abs(difference.mean()) <= max(0.001, 2.6 * difference.std(ddof=1) / math.sqrt(trainings))


def test_taskness_of_whole_trainings_agrees_with_reference(fast):
    check_taskness_agrees(fast, n=10, trainings=20)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_taskness_of_many_trainings_at_the_default_size_agrees_with_reference(fast):
    check_taskness_agrees(fast, n=50, trainings=100)


# batch-invariance


@pytest.mark.parametrize("n", [6, 15, 50])
def test_alone_or_among_others_a_training_has_the_same_bits(engine, n):
    batch = Batch(n, size=19)
    together = batch.curves(engine)
    for b in (0, 7, 15, 16, 18):
        np.testing.assert_array_equal(batch.curves(engine, members=slice(b, b + 1))[0], together[b])


def test_order_in_the_batch_changes_no_bit(engine):
    batch = Batch(size=7)
    order = np.array([3, 0, 6, 1, 5, 2, 4])
    np.testing.assert_array_equal(batch.curves(engine, members=order), batch.curves(engine)[order])


@pytest.mark.parametrize("name", ["batched", "reference"])
def test_lack_of_memory_is_a_memory_error(name, monkeypatch):
    engine = make_engine(name)
    monkeypatch.setattr(f"tdbench.engine.{name}.F.cross_entropy", lambda *_, **__: torch.empty(2**50))
    with pytest.raises(MemoryError, match="allocate"):
        Batch().curves(engine)


def test_chunks_change_no_bit():
    batch = Batch(n=9, size=10)
    expected = batch.curves(BatchedEngine(chunk=16))
    for chunk in (1, 3, 10):
        np.testing.assert_array_equal(batch.curves(BatchedEngine(chunk=chunk)), expected)


def test_networks_together_as_on_cuda_agree_with_reference_in_padded_chunks():
    """The branch for CUDA, on tensors of the CPU."""
    together, batch = BatchedEngine(chunk=3, together=True), Batch(n=9, size=8, sets=2)
    assert together.detail == "chunk=3"
    trained, expected = together.train(batch.checked(), FEW), ReferenceEngine().train(batch.checked(), FEW)
    np.testing.assert_allclose(trained.curves, expected.curves, rtol=0, atol=2e-5)
    assert np.mean(np.abs(trained.weights - expected.weights) < 1e-4) > 0.99
    batch.weights, batch.seeds = initial_weights(batch.seeds), None
    np.testing.assert_array_equal(batch.curves(together), trained.curves)


def test_weights_drawn_on_the_device_are_the_definition_bit_for_bit():
    seeds = np.array([0, 1, 2**32, 2**64 - 1], dtype=np.uint64)
    np.testing.assert_array_equal(drawn_weights(seeds, "cpu").numpy(), initial_weights(seeds))


def test_a_chunk_that_does_not_fit_is_an_error_that_says_what_to_set(monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("tdbench.engine.batched.F.cross_entropy", full)
    engine = BatchedEngine(chunk=3, together=True)
    with pytest.raises(MemoryError, match=r"3 networks of 15 images do not fit .* set TDBENCH_BATCHED_CHUNK to fewer"):
        Batch().curves(engine)
    assert engine.detail == "chunk=3"


def test_the_chunk_on_cuda_can_be_set_and_is_recorded(monkeypatch):
    assert BatchedEngine("cuda").detail == "chunk=128"
    monkeypatch.setenv("TDBENCH_BATCHED_CHUNK", "40")
    assert BatchedEngine("cuda").detail == "chunk=40"
    monkeypatch.setenv("TDBENCH_BATCHED_CHUNK", "none")
    with pytest.raises(UserError, match="at least 1, got 'none'"):
        BatchedEngine("cuda")


def test_each_training_uses_its_own_image_set(engine):
    batch = Batch(n=9, size=5, sets=3)
    together = batch.curves(engine)
    for b, s in enumerate(batch.image_set):
        m = slice(b, b + 1)
        alone = TrainingBatch.checked(batch.images[s], batch.labels[m], batch.train[m], batch.seeds[m])
        np.testing.assert_array_equal(engine.curves(alone, FEW)[0], together[b])


@pytest.mark.parametrize("lr", [1e6, 1e20])
def test_a_diverged_training_harms_no_neighbour(engine, lr):
    """One training meets images so large that it overflows; the other is as it was."""
    batch = Batch(n=9, size=2, sets=2)
    healthy = batch.curves(engine, members=slice(0, 1))
    batch.images[1] *= lr
    curves = batch.curves(engine)
    np.testing.assert_array_equal(curves[0], healthy[0])
    assert not (curves[1] < 1e3).all()


def test_the_same_call_gives_the_same_bits(engine):
    batch = Batch()
    np.testing.assert_array_equal(batch.curves(engine), batch.curves(engine))


# edges


@pytest.mark.parametrize("n", [2, 3, 7, 17, 33])
def test_any_number_of_images(engine, n):
    batch = Batch(max(n, 4), size=2)
    batch.images, batch.labels, batch.train = batch.images[:, :n], batch.labels[:, :n], batch.train[:, :n]
    batch.train[:, 0], batch.train[:, -1] = True, False
    np.testing.assert_allclose(batch.curves(engine), batch.curves(ReferenceEngine()), rtol=0, atol=2e-5)


def test_no_trainings_give_no_curves(engine):
    assert Batch(size=4).curves(engine, members=slice(0, 0)).shape == (0, 6)


def test_blank_images_train_to_finite_losses_below_chance(engine):
    batch = Batch(n=15, size=3)
    batch.images[:] = 0
    curves = batch.curves(engine, TrainingProtocol(40))
    assert np.isfinite(curves).all()
    assert (generalization_level(curves) < math.log(2)).all()


def test_curves_are_float32_with_one_entry_a_step(engine):
    curves = Batch(size=3).curves(engine, TrainingProtocol(9))
    assert (curves.shape, curves.dtype) == ((3, 9), np.float32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": np.zeros((15, 3, 28, 28))}, "expected images"),
        ({"images": np.zeros((3, 32, 32))}, "expected images"),
        ({"labels": np.zeros((4, 14), dtype=np.uint8)}, r"expected labels with shape \(B, 15\)"),
        ({"train": np.ones((3, 15), dtype=bool)}, r"expected train_mask with shape \(4, 15\)"),
        ({"labels": np.full((4, 15), 2)}, "labels must be 0 or 1"),
        ({"labels": np.full((4, 15), 0.5)}, "labels must be 0 or 1"),
        ({"labels": np.uint8(1)}, r"expected labels with shape \(B, 15\), but it had shape \(\)"),
        ({"train": np.arange(60).reshape(4, 15) >= 15}, "training 0 has none"),
        ({"seeds": np.zeros(3, dtype=np.uint64)}, r"expected seeds with shape \(4,\), but it had shape \(3,\)"),
        ({"seeds": None}, "either seeds or weights, got neither"),
        ({"weights": np.zeros((4, 61_326))}, "either seeds or weights, got both"),
        ({"seeds": None, "weights": np.zeros((4, 61_325))}, r"expected weights .*\(4, 61326\), .* shape \(4, 61325\)"),
        ({"seeds": None, "weights": np.zeros((3, 61_326))}, r"expected weights .*\(4, 61326\), .* shape \(3, 61326\)"),
        ({"image_set": np.zeros(5, dtype=int)}, "expected image_set"),
        ({"image_set": np.array([0, 0, 0, 1])}, "image_set must lie in 0..0"),
        ({"image_set": np.array([0, 0, 0, -1])}, "image_set must lie in 0..0"),
    ],
)
def test_arguments_that_do_not_fit_are_errors_that_say_what_was_expected(change, message):
    batch = Batch(n=15, size=4)
    vars(batch).update(change)
    with pytest.raises(ValueError, match=message):
        batch.checked()


def test_read_only_and_unusual_arrays_are_taken_and_left_alone(engine):
    batch = Batch(size=3)
    expected, before = batch.curves(engine), batch.images.copy()
    batch.images = np.asfortranarray(batch.images.astype(np.float64))
    batch.labels = batch.labels.astype(np.int64)
    for array in (batch.images, batch.labels, batch.train, batch.seeds):
        array.flags.writeable = False
    np.testing.assert_array_equal(batch.curves(engine), expected)
    np.testing.assert_array_equal(batch.images, before)


# the user's torch


def products():
    """How torch computes float32 products, by its own names; what cannot be asked for any more is left out."""
    backends = torch.backends
    where = (backends, backends.cuda.matmul, backends.cudnn, backends.cudnn.conv, backends.mkldnn.matmul)
    return tuple(place.fp32_precision for place in where)


USERS = {
    "nothing": lambda: None,
    "legacy matmul": lambda: setattr(torch.backends.cuda.matmul, "allow_tf32", True),
    "legacy cuDNN": lambda: setattr(torch.backends.cudnn, "allow_tf32", False),
    "medium": lambda: torch.set_float32_matmul_precision("medium"),
    "all TF32": lambda: setattr(torch.backends, "fp32_precision", "tf32"),
    "convolutions": lambda: setattr(torch.backends.cudnn.conv, "fp32_precision", "tf32"),
    "cuDNN off": lambda: setattr(torch.backends.cudnn, "enabled", False),
}


@pytest.mark.parametrize("setting", USERS)
def test_float32_is_exact_whatever_the_user_has_set_and_that_is_put_back(setting):
    """In a process of its own: torch keeps no way back from some of these settings."""
    code = f"""
import sys; sys.path[:0] = {[str(Path(__file__).parent), *sys.path]!r}
import torch
from test_engines import USERS, products
from tdbench.engine.precision import exact_float32
USERS[{setting!r}]()
cudnn = torch.backends.cudnn
before = products(), cudnn.enabled, cudnn.deterministic, cudnn.benchmark
try:
    with exact_float32():
        assert torch.backends.cuda.matmul.fp32_precision == "ieee"
        assert torch.backends.cudnn.conv.fp32_precision == "ieee"
        assert torch.backends.mkldnn.matmul.fp32_precision == "ieee"
        assert (cudnn.enabled, cudnn.deterministic, cudnn.benchmark) == (True, True, False)
        raise KeyError
except KeyError:
    pass
assert (products(), cudnn.enabled, cudnn.deterministic, cudnn.benchmark) == before
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def torch_state():
    backends = torch.backends
    return (
        torch.get_num_threads(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.get_default_dtype(),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_float32_matmul_precision(),
        backends.cuda.matmul.allow_tf32,
        *(getattr(backends.cudnn, name) for name in ("enabled", "benchmark", "deterministic", "allow_tf32")),
    )


@pytest.fixture(params=[True, False])
def unusual_torch(request):
    """Settings a user may have, none of them the default."""
    before = torch_state()
    benchmark, deterministic = torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic
    torch.set_num_threads(2 if request.param else 1)
    torch.set_default_dtype(torch.float64)
    torch.backends.cudnn.benchmark = request.param
    torch.backends.cudnn.deterministic = not request.param
    with torch.inference_mode(request.param), torch.set_grad_enabled(False):
        yield
    torch.set_num_threads(before[0])
    torch.set_default_dtype(before[3])
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = benchmark, deterministic


def test_the_users_torch_is_left_as_it_was_and_changes_no_bit(engine, unusual_torch, random_state_untouched):
    batch, state = Batch(size=2), torch_state()
    with random_state_untouched():
        curves = batch.curves(engine)
    assert torch_state() == state
    torch.set_default_dtype(torch.float32)
    with torch.inference_mode(False), torch.enable_grad():
        np.testing.assert_array_equal(batch.curves(engine), curves)


def test_torch_settings_are_put_back_after_an_error(monkeypatch):
    state = torch_state()
    monkeypatch.setattr("tdbench.engine.batched.F.cross_entropy", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        Batch().curves(BatchedEngine(threads=2 if state[0] == 1 else 1))
    assert torch_state() == state


# the choice


def test_auto_takes_the_native_kernel_on_a_cpu_where_it_is_built(monkeypatch):
    expected = "native" if native.unavailable() is None else "batched"
    assert make_engine("auto", "cpu").name == expected
    monkeypatch.setattr(native, "unavailable", lambda: "not built")
    assert make_engine("auto", "cpu").name == "batched"


def test_native_asked_for_stays_on_the_cpu_beside_a_gpu(monkeypatch):
    if native.unavailable() is not None:
        pytest.skip(str(native.unavailable()))
    monkeypatch.setattr(engines, "cuda_available", lambda: True)
    assert make_engine("native").device == "cpu"
    with pytest.raises(UserError, match="native runs on the CPU"):
        make_engine("native", "cuda")


def test_cuda_without_one_is_a_clear_error(monkeypatch):
    monkeypatch.setattr(engines, "cuda_available", lambda: False)
    with pytest.raises(UserError, match="no CUDA device here; use device cpu"):
        make_engine("batched", "cuda")


@pytest.mark.parametrize(
    ("name", "device", "message"),
    [("batchd", "cpu", "did you mean 'batched'"), ("batched", "cudaa", "did you mean 'cuda'"), ("x", "cpu", "known")],
)
def test_an_unknown_choice_names_the_nearest(name, device, message):
    with pytest.raises(UserError, match=message):
        make_engine(name, device)


def test_however_an_engine_is_asked_for_it_is_one_object():
    assert make_engine("batched", "cpu") is make_engine(name="batched", device="cpu", threads=None)
    chosen = make_engine("auto", "cpu")
    assert make_engine(chosen.name, chosen.device) is chosen
