"""Random numbers are the published Philox, the same everywhere, and of different purpose never the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tdbench.base.rng import Stream, permutation, philox, random_labelings, replicate_seeds, split_key, words
from tdbench.engine.networks import INIT_BOUNDS, LAYERS, N_PARAMETERS, initial_weights

WORD = st.integers(0, 2**32 - 1)
SEED = st.integers(0, 2**64 - 1)

# Random123, tests/kat_vectors: counter, key -> output of philox4x32-10
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def hexadecimal(text):
    return [int(word, 16) for word in text.split()]


def by_the_book(counter, key):
    """Philox4x32-10 in Python integers, as the paper writes it."""
    c, k = list(counter), list(key)
    for _ in range(10):
        a, b = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
        c = [(b >> 32) ^ c[1] ^ k[0], b & 0xFFFFFFFF, (a >> 32) ^ c[3] ^ k[1], a & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


@pytest.mark.parametrize(("counter", "key", "output"), KNOWN)
def test_philox_gives_the_known_answers(counter, key, output):
    arguments = [np.array([word], dtype=np.int64) for word in hexadecimal(counter) + hexadecimal(key)]
    assert [int(part[0]) for part in philox(*arguments)] == hexadecimal(output)


@given(st.lists(WORD, min_size=6, max_size=6))
def test_torch_and_numpy_draw_what_the_paper_defines(arguments):
    expected = by_the_book(arguments[:4], arguments[4:])
    assert [int(p[0]) for p in philox(*(np.array([a], dtype=np.int64) for a in arguments))] == expected
    assert [int(p[0]) for p in philox(*(torch.tensor([a], dtype=torch.int64) for a in arguments))] == expected


@given(SEED)
def test_a_seed_is_taken_apart_into_its_two_words(seed):
    low, high = split_key(np.array([seed], dtype=np.uint64))
    assert int(low[0]) | int(high[0]) << 32 == seed


def test_streams_keys_and_lanes_draw_different_words():
    drawn = [
        words(8, stream, (np.int64(k0), np.int64(k1)), lane)
        for stream in Stream
        for k0, k1, lane in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    ]
    assert len({row.tobytes() for row in drawn}) == len(drawn)


@given(n=st.integers(1, 40), more=st.integers(0, 20), seed=SEED)
def test_words_do_not_depend_on_how_many_are_drawn(n, more, seed):
    key = split_key(np.uint64(seed))
    np.testing.assert_array_equal(words(n + more, Stream.SPLIT, key)[:n], words(n, Stream.SPLIT, key))


@given(seed=SEED, others=st.lists(SEED, max_size=5), n=st.integers(1, 30))
def test_a_permutation_is_one_and_ignores_its_neighbours(seed, others, n):
    alone = permutation(n, Stream.SPLIT, split_key(np.array([seed], dtype=np.uint64)))[0]
    beside = permutation(n, Stream.SPLIT, split_key(np.array([*others, seed], dtype=np.uint64)))[-1]
    assert sorted(alone) == list(range(n))
    np.testing.assert_array_equal(alone, beside)


def test_permutations_put_each_image_everywhere_equally_often():
    orders = permutation(6, Stream.SPLIT, split_key(np.arange(6000, dtype=np.uint64)))
    counts = [np.bincount(orders[:, place], minlength=6) for place in range(6)]
    assert min(stats.chisquare(row).pvalue for row in counts) > 1e-4


def test_replicate_seeds_differ_by_stream_space_run_evaluation_and_replicate():
    drawn = [
        replicate_seeds(stream, space, run, [0, 1, 2], 3)
        for stream in (Stream.FRESH, Stream.FROZEN, Stream.CONFIRM, Stream.BLIND)
        for space in (0, 1, 2**32 - 1)
        for run in (0, 1, 2**32 - 1)
    ]
    assert len(np.unique(np.concatenate(drawn))) == len(drawn) * 9


@given(st.lists(st.integers(0, 2**31), min_size=1, max_size=6), st.integers(1, 4), WORD, WORD)
def test_replicate_seeds_do_not_depend_on_the_batch(evaluations, replicates, space_seed, run_seed):
    together = replicate_seeds(Stream.FRESH, space_seed, run_seed, evaluations, replicates)
    for row, evaluation in zip(together, evaluations, strict=True):
        alone = replicate_seeds(Stream.FRESH, space_seed, run_seed, [evaluation], replicates + 1)
        np.testing.assert_array_equal(alone[0, :replicates], row)


@given(count=st.integers(0, 5), n=st.integers(2, 60), seed=WORD, data=st.data())
def test_random_labelings_have_exactly_the_positives_asked_for(count, n, seed, data):
    positives = data.draw(st.integers(0, n))
    labels = random_labelings(count, n, positives, seed)
    assert labels.shape == (count, n)
    assert (labels.sum(axis=1) == positives).all()
    assert np.isin(labels, (0, 1)).all()


def test_random_labelings_are_uniform_over_all_labelings():
    labels = random_labelings(15_000, 6, 2, seed=3)
    _, counts = np.unique(labels, axis=0, return_counts=True)
    assert len(counts) == 15
    assert stats.chisquare(counts).pvalue > 1e-3


def test_random_labelings_of_other_seeds_and_lanes_are_others():
    drawn = [random_labelings(4, 40, 10, seed, lane).tobytes() for seed in (0, 1) for lane in (0, 1)]
    assert len(set(drawn)) == 4


def test_initial_weights_fill_pytorchs_default_range_evenly():
    weights = initial_weights(np.array([5], dtype=np.uint64))[0]
    assert stats.kstest(weights / INIT_BOUNDS, stats.uniform(-1, 2).cdf).pvalue > 1e-3


def test_initial_weights_have_the_bounds_that_pytorch_draws_within():
    torch_layers = {
        "conv1": torch.nn.Conv2d(3, 6, 5),
        "conv2": torch.nn.Conv2d(6, 16, 5),
        "fc1": torch.nn.Linear(400, 120),
        "fc2": torch.nn.Linear(120, 84),
        "fc3": torch.nn.Linear(84, 2),
    }
    assert N_PARAMETERS == 61_326
    for layer in LAYERS:
        name, _, which = layer.name.partition(".")
        drawn = getattr(torch_layers[name], which).detach()
        assert tuple(drawn.shape) == layer.shape
        assert drawn.abs().max() <= layer.fan_in**-0.5
        if layer.size > 1000:  # enough draws to come close to the bound
            assert drawn.abs().max() > 0.98 * layer.fan_in**-0.5


@given(st.lists(SEED, min_size=1, max_size=3), SEED)
def test_initial_weights_do_not_depend_on_the_batch(others, seed):
    beside = initial_weights(np.array([*others, seed], dtype=np.uint64))[-1]
    np.testing.assert_array_equal(beside, initial_weights(np.array([seed], dtype=np.uint64))[0])


def test_drawing_leaves_global_generators_alone(random_state_untouched):
    with random_state_untouched():
        random_labelings(3, 10, 2, 0)
        replicate_seeds(Stream.FRESH, 0, 0, [0], 2)
        initial_weights(np.array([1], dtype=np.uint64))
