"""Weights of one network made into the initial weights of another."""

from __future__ import annotations

import numpy as np
import pytest

from tdbench.engine.networks import LAYERS, initial_weights, scaled_like, with_new_last_layer

SEEDS = np.arange(3, dtype=np.uint64)
OTHER_SEEDS = SEEDS + np.uint64(2**40)


def layers(weights):
    """(name, (B, size) values) of each parameter tensor."""
    parts = np.split(weights, np.cumsum([layer.size for layer in LAYERS])[:-1], axis=1)
    return [(layer.name, part) for layer, part in zip(LAYERS, parts, strict=True)]


def test_only_the_last_layer_is_drawn_anew():
    old, drawn = initial_weights(SEEDS), initial_weights(OTHER_SEEDS)
    made = with_new_last_layer(old, OTHER_SEEDS)
    for (name, part), (_, kept), (_, new) in zip(layers(made), layers(old), layers(drawn), strict=True):
        np.testing.assert_array_equal(part, new if name.startswith("fc3") else kept)
    np.testing.assert_array_equal(old, initial_weights(SEEDS))


def test_every_tensor_but_those_of_the_last_layer_gets_the_norm_of_the_other_network():
    drawn = initial_weights(SEEDS)
    like = initial_weights(OTHER_SEEDS) * np.linspace(0.5, 3, drawn.shape[1], dtype=np.float32)
    scaled = scaled_like(drawn, like)
    for (name, part), (_, old), (_, other) in zip(layers(scaled), layers(drawn), layers(like), strict=True):
        if name.startswith("fc3"):
            np.testing.assert_array_equal(part, old)
            continue
        before, after, target = (np.linalg.norm(w, axis=1, keepdims=True) for w in (old, part, other))
        np.testing.assert_allclose(after, target, rtol=1e-5)
        np.testing.assert_allclose(part / after, old / before, rtol=1e-4, atol=1e-7)
    np.testing.assert_array_equal(drawn, initial_weights(SEEDS))


def test_tensors_of_zeros_are_scaled_from_and_to_zero():
    drawn = initial_weights(SEEDS)
    assert not scaled_like(drawn, np.zeros_like(drawn))[:, :-170].any()
    assert not scaled_like(np.zeros_like(drawn), drawn).any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda w: with_new_last_layer(w[:, 1:], SEEDS), "expected weights with shape"),
        (lambda w: with_new_last_layer(w, SEEDS[:2]), "expected seeds with shape"),
        (lambda w: scaled_like(w[0], w), "expected weights with shape"),
        (lambda w: scaled_like(w, w[:, 1:]), "expected like with shape"),
        (lambda w: scaled_like(w, w[:2]), "expected like with shape"),
    ],
)
def test_wrong_shapes_are_errors_that_say_what_was_expected(call, message):
    with pytest.raises(ValueError, match=message):
        call(initial_weights(SEEDS))
