"""The tangent kernel: that it is the gradients' dot product, and that it leaves everything else alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tdbench import UserError
from tdbench.base.rng import Stream, replicate_seeds
from tdbench.engine.reference import network
from tdbench.toolkit.tangent import CHUNK, adam_kernel, tangent_kernel


def some_images(n: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((n, 3, 32, 32), dtype=np.float32)


def gradients(images: NDArray[np.float32], network_seed: int) -> NDArray[np.float64]:
    """(N, 61326) gradients of logit 1 - logit 0, one image and one backward pass at a time."""
    net = network(network_seed).double()
    rows = []
    for image in torch.from_numpy(images).double():
        logits = net(image[None])[0]
        parts = torch.autograd.grad(logits[1] - logits[0], list(net.parameters()))
        rows.append(torch.cat([part.flatten() for part in parts]).numpy())
    return np.array(rows)


@pytest.mark.parametrize("initializations", [1, 3])
def test_an_entry_is_the_dot_product_of_two_images_gradients(initializations: int) -> None:
    images = some_images(5)
    seeds = replicate_seeds(Stream.TANGENT, 7, 0, [0], initializations)[0]
    expected = np.mean([(g := gradients(images, int(seed))) @ g.T for seed in seeds], axis=0)
    expected /= expected.diagonal().mean()
    np.testing.assert_allclose(tangent_kernel(images, initializations, seed=7), expected, rtol=1e-10, atol=0)


def test_adams_kernel_divides_each_parameter_by_the_size_of_its_gradients() -> None:
    images = some_images(5)
    expected = np.zeros((5, 5))
    for seed in replicate_seeds(Stream.TANGENT, 7, 0, [0], 2)[0]:
        of_images = gradients(images, int(seed))
        size = np.sqrt((of_images**2).mean(axis=0))
        expected += of_images / np.where(size > 0, size, 1) @ of_images.T
    expected /= expected.diagonal().mean()
    np.testing.assert_allclose(adam_kernel(images, 2, seed=7), expected, rtol=1e-10, atol=0)


def test_it_is_a_kernel_scaled_to_a_mean_diagonal_of_one() -> None:
    kernel = tangent_kernel(some_images(20), initializations=2)
    assert kernel.shape == (20, 20)
    assert kernel.dtype == np.float64
    assert np.array_equal(kernel, kernel.T)
    assert kernel.diagonal().mean() == pytest.approx(1)
    assert np.linalg.eigvalsh(kernel).min() > -1e-10


def test_more_images_than_are_computed_at_a_time_change_nothing_for_the_first() -> None:
    images = some_images(CHUNK + 3)
    few, many = tangent_kernel(images[:4], 1), tangent_kernel(images, 1)[:4, :4]
    np.testing.assert_allclose(few / few[0, 0], many / many[0, 0], rtol=1e-10)


def test_the_order_of_the_images_is_the_order_of_the_kernel() -> None:
    images, order = some_images(6), np.array([3, 1, 5, 0, 2, 4])
    np.testing.assert_allclose(tangent_kernel(images[order], 1), tangent_kernel(images, 1)[np.ix_(order, order)])


def test_blank_images_are_all_alike() -> None:
    np.testing.assert_allclose(tangent_kernel(np.zeros((3, 3, 32, 32), dtype=np.float32), 2), 1)


def test_the_seed_draws_the_initializations() -> None:
    images = some_images(4)
    assert np.array_equal(tangent_kernel(images, 1, seed=1), tangent_kernel(images, 1, seed=1))
    assert not np.allclose(tangent_kernel(images, 1, seed=1), tangent_kernel(images, 1, seed=2))


def test_images_and_the_users_torch_are_left_alone() -> None:
    images = some_images(4)
    images.flags.writeable = False  # as a problem's images are
    random_state, threads = torch.get_rng_state(), torch.get_num_threads()
    with torch.inference_mode():
        inside = tangent_kernel(images, 1, threads=1)
    torch.set_default_dtype(torch.float64)
    try:
        assert np.array_equal(tangent_kernel(images, 1, threads=1), inside)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert torch.get_num_threads() == threads


def test_what_it_cannot_work_with_is_refused() -> None:
    with pytest.raises(UserError, match="initializations must be at least 1, got 0"):
        tangent_kernel(some_images(2), 0)
    with pytest.raises(UserError, match="seed must be from 0 to 4294967295, got -1"):
        tangent_kernel(some_images(2), seed=-1)
    with pytest.raises(ValueError, match=r"with shape \(N, 3, 32, 32\), but it had shape \(2, 32, 32, 3\)"):
        tangent_kernel(np.zeros((2, 32, 32, 3)))
