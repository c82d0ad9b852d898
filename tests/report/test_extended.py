"""The picture of extended tasks, as PNG and SVG, of sets and sources of any size."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from tdbench import TaskSpace
from tdbench.report.extended import extended_figure, write_extended_picture
from tdbench.space.sources import Source, load_source
from tdbench.tasks.extend import extend
from tdbench.tasks.scoring import score

DIGITS = load_source("digits")


@pytest.fixture(scope="module")
def extended():
    few = Source("few", DIGITS.images[:70], DIGITS.labels[:70], DIGITS.label_names)
    space = TaskSpace(few, n=20, steps=12)
    library = score(space, space.random_labelings(3), confirm=4)
    return library, extend(library, space, few), space.pixels, few.images


def test_a_row_shows_positives_and_both_ends_of_each_task(extended):
    library, extension, pixels, source = extended
    figure = extended_figure(library, extension, pixels, source, "digits")
    strips = [axes.images[0].get_array() for axes in figure.axes]
    assert len(strips) == 9
    positives = pixels[library.labels[0].astype(bool)]
    np.testing.assert_array_equal(strips[0][:32, :32, :3], positives[0])
    np.testing.assert_array_equal(strips[1][:32, :32, :3], source[extension.most_positive(0)[0]])
    np.testing.assert_array_equal(strips[2][:32, :32, :3], source[extension.least_positive(0)[0]])
    texts = " ".join(text.get_text() for text in figure.texts)
    assert f"1: {library.confirmed[0]:.2f}" in texts and f"agreement {extension.agreement[0, 0]:.2f}" in texts


def test_it_is_written_as_png_and_as_svg(extended, tmp_path):
    for name in ("a.png", "a.svg", "b.svg"):
        write_extended_picture(tmp_path / name, *extended, "a title with $ and <")
    image = Image.open(io.BytesIO((tmp_path / "a.png").read_bytes()))
    assert image.size[0] > 1000 and np.ptp(np.asarray(image)) > 100
    svg = (tmp_path / "a.svg").read_text()
    assert "<svg" in svg and "$ and &lt;" in svg
    assert svg == (tmp_path / "b.svg").read_text()  # nothing in it tells the time


def test_few_unseen_images_are_all_shown():
    index = np.concatenate([np.flatnonzero(DIGITS.labels == c)[: 10 if c == 0 else 6] for c in range(10)])
    few = Source("few", DIGITS.images[index], DIGITS.labels[index], DIGITS.label_names)
    space = TaskSpace(few, n=60, ratio=9, steps=5)
    library = score(space, space.random_labelings(1), confirm=2)
    figure = extended_figure(library, extend(library, space, few), space.pixels, few.images, "digits")
    widths = [axes.images[0].get_array().shape[1] for axes in figure.axes]
    assert widths == [6 * 34 - 2, 4 * 34 - 2, 4 * 34 - 2]
