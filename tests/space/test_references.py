"""Reference tasks against statistics computed image by image."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tdbench.space import references
from tdbench.space.references import STATISTICS, all_tasks, chosen, class_tasks, pixel_tasks, random_tasks

SIDE = 32


@pytest.fixture(scope="module")
def pixels():
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (6, 4, 4, 3))
    return np.kron(small, np.ones((1, 8, 8, 1), dtype=int)).astype(np.uint8)


def grey(image):
    return [[sum(map(float, image[y, x])) / 3 for x in range(SIDE)] for y in range(SIDE)]


def mean(values):
    values = list(values)
    return math.fsum(values) / len(values)


def everything(image):
    return [float(v) for row in image for pixel in row for v in pixel]


def deviation(values):
    values = list(values)
    centre = mean(values)
    return math.sqrt(mean((v - centre) ** 2 for v in values))


def edges(image):
    g = grey(image)
    down = mean(abs(g[y + 1][x] - g[y][x]) for y in range(SIDE - 1) for x in range(SIDE))
    across = mean(abs(g[y][x + 1] - g[y][x]) for y in range(SIDE) for x in range(SIDE - 1))
    return down + across


def per_pixel(function):
    return lambda image: mean(function(*map(float, image[y, x])) for y in range(SIDE) for x in range(SIDE))


NAIVE = {
    "brightest": lambda im: mean(everything(im)),
    "darkest": lambda im: -mean(everything(im)),
    "most contrast": lambda im: deviation(v for row in grey(im) for v in row),
    "sharpest": edges,
    "most saturated": per_pixel(lambda r, g, b: max(r, g, b) - min(r, g, b)),
    "reddest minus bluest": per_pixel(lambda r, g, b: r - b),
    "greenest": per_pixel(lambda r, g, b: g - (r + b) / 2),
    "bright top": lambda im: mean(everything(im[:16])) - mean(everything(im[16:])),
    "bright centre": lambda im: mean(everything(im[8:24, 8:24])) - mean(everything(im)),
}


def test_every_statistic_is_checked_here():
    assert NAIVE.keys() == STATISTICS.keys()


@pytest.mark.parametrize("name", NAIVE)
def test_statistic_is_what_its_name_says(name, pixels):
    expected = [NAIVE[name](image) for image in pixels]
    np.testing.assert_allclose(STATISTICS[name](pixels.astype(np.float64)), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", NAIVE)
def test_the_images_highest_in_the_statistic_are_labelled(name, pixels):
    values = [NAIVE[name](image) for image in pixels]
    highest = sorted(range(len(values)), key=lambda i: (-round(values[i], 9), i))[:2]
    task = next(task for task in pixel_tasks(pixels, 2) if task.name == name)
    assert sorted(np.flatnonzero(task.labels)) == sorted(highest)


def test_a_constant_statistic_is_dropped():
    grey_images = np.repeat(np.random.default_rng(1).integers(0, 256, (5, 32, 32, 1), dtype=np.uint8), 3, axis=-1)
    names = {task.name for task in pixel_tasks(grey_images, 2)}
    assert names == set(STATISTICS) - {"most saturated", "reddest minus bluest", "greenest"}


def test_images_that_are_all_the_same_have_no_pixel_task():
    assert pixel_tasks(np.full((5, 32, 32, 3), 77, dtype=np.uint8), 2) == ()


def test_ties_go_to_the_lower_index():
    pixels = np.zeros((6, 32, 32, 3), dtype=np.uint8)
    pixels[[1, 3, 4]] = 100
    task = next(task for task in pixel_tasks(pixels, 2) if task.name == "brightest")
    assert list(np.flatnonzero(task.labels)) == [1, 3]


def test_equal_images_tie_although_their_sums_round_differently():
    image = np.random.default_rng(3).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    pixels = np.stack([image, image.transpose(1, 0, 2), np.zeros_like(image)])
    task = next(task for task in pixel_tasks(pixels, 1) if task.name == "most contrast")
    assert list(np.flatnonzero(task.labels)) == [0]


def test_class_tasks_are_each_class_against_the_rest():
    tasks = class_tasks(np.array([1, 0, 1, 0]), ["ship", "frog"])
    assert [(t.name, t.kind, list(t.labels)) for t in tasks] == [
        ("ship", "class", [0, 1, 0, 1]),
        ("frog", "class", [1, 0, 1, 0]),
    ]


def test_random_tasks_are_the_same_for_every_space_of_a_size():
    first, again = random_tasks(20, 5), random_tasks(20, 5)
    assert [t.labels.tobytes() for t in first] == [t.labels.tobytes() for t in again]
    assert len({t.labels.tobytes() for t in first}) == references.RANDOM_TASKS


def test_all_reference_tasks_of_a_set_have_its_number_of_positives(pixels):
    tasks = all_tasks(pixels, np.array([0, 1, 2, 2, 1, 0]), ["a", "b", "c"])
    assert {t.kind for t in tasks} == {"class", "pixel", "random"}
    assert all(t.labels.sum() == 2 for t in tasks)
    assert len({t.name for t in tasks}) == len(tasks)


def test_labelling_leaves_the_pixels_alone(pixels):
    before = pixels.copy()
    pixel_tasks(pixels, 2)
    np.testing.assert_array_equal(pixels, before)


def some_tasks():
    pixels = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    return all_tasks(pixels, np.arange(20) % 10, list("abcdefghij"))


@pytest.mark.parametrize(
    ("choice", "searched", "expected"),
    [
        ("all", 0, 27),
        ("few", 10**9, 9),
        ("none", 10**9, 0),
        ("auto", 27 * 32, 27),
        ("auto", 27 * 32 - 1, 9),
    ],
)
def test_which_reference_tasks_are_confirmed_depends_on_the_choice_and_on_the_search(choice, searched, expected):
    assert len(chosen(some_tasks(), choice, 32, searched)) == expected


def test_few_reference_tasks_are_of_every_kind():
    names = [task.name for task in chosen(some_tasks(), "few", 32, 0)]
    assert names == [*"abcde", "brightest", "reddest minus bluest", "random 0", "random 1"]
