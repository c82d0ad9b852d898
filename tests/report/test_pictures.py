"""Pictures of discovered tasks: what a reader must be able to see in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from tdbench.base.errors import UserError
from tdbench.report.pictures import best_so_far, montage, run_figure, write_run_picture

GENERATOR = np.random.default_rng(0)
SCORES: dict[str, Any] = {"title": "twopointsde on digits", "told": 0.98, "confirmed": 0.36, "confirmed_se": 0.02}


def task(n: int, positives: int) -> tuple[np.ndarray, np.ndarray]:
    labels = np.zeros(n, dtype=np.uint8)
    labels[GENERATOR.permutation(n)[:positives]] = 1
    return GENERATOR.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8), labels


def texts(figure: Figure) -> str:
    own = [text.get_text() for text in figure.texts]
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    legends = [text.get_text() for axes in figure.axes if axes.get_legend() for text in axes.get_legend().get_texts()]
    return "\n".join([*own, *titles, *legends])


@pytest.mark.parametrize(("n", "positives"), [(10, 2), (50, 10), (400, 10), (500, 250)])
def test_a_picture_is_a_png_of_readable_size_for_every_n(tmp_path: Path, n: int, positives: int) -> None:
    path = tmp_path / "new" / "picture.png"
    write_run_picture(path, *task(n, positives), GENERATOR.normal(0, 0.3, 320), **SCORES)
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.width == 1200
        assert 600 < image.height < 1600
    assert [file.name for file in path.parent.iterdir()] == ["picture.png"]


def test_told_and_confirmed_stand_in_the_title() -> None:
    shown = texts(run_figure(*task(50, 10), np.zeros(5), **SCORES))
    assert "told 0.98, confirmed 0.36 ± 0.02" in shown
    assert "best told" in shown and "confirmed ± standard error" in shown


@pytest.mark.parametrize(
    ("n", "positives", "expected"),
    [
        (50, 10, ("10 positives", "40 negatives")),
        (500, 250, ("100 of 250 positives", "100 of 250 negatives")),
        (400, 10, ("10 positives", "100 of 390 negatives")),
    ],
)
def test_how_many_images_of_each_side_are_shown_is_said(n: int, positives: int, expected: tuple[str, str]) -> None:
    shown = texts(run_figure(*task(n, positives), np.zeros(5), **SCORES))
    assert all(text in shown.splitlines() for text in expected)


@pytest.mark.parametrize("title", ["nevergrad:$\\frac{x$", "a\nb\x00c", "x" * 500, "\N{SNOWMAN}\u65e5\u672c"])
def test_a_title_is_plain_text_whatever_is_in_it(tmp_path: Path, title: str) -> None:
    write_run_picture(tmp_path / "p.png", *task(10, 2), np.zeros(3), **{**SCORES, "title": title})
    assert (tmp_path / "p.png").is_file()


def test_a_run_without_scores_has_a_picture_that_says_so(tmp_path: Path) -> None:
    nothing = dict.fromkeys(("told", "confirmed", "confirmed_se"), float("nan"))
    arguments: dict[str, Any] = {**SCORES, **nothing}
    assert "nothing told, not confirmed" in texts(run_figure(*task(10, 2), np.zeros(0), **arguments))
    write_run_picture(tmp_path / "p.png", *task(10, 2), np.full(4, np.nan), **arguments)


def test_global_settings_of_matplotlib_are_left_alone(tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    write_run_picture(tmp_path / "p.png", *task(10, 2), np.zeros(3), **SCORES)
    assert dict(mpl.rcParams) == before


def test_a_file_that_cannot_be_written_is_an_error_for_people(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_run_picture(tmp_path / "file" / "p.png", *task(10, 2), np.zeros(3), **SCORES)


def test_a_montage_keeps_images_in_order_and_unchanged() -> None:
    images, _ = task(5, 2)
    joined = montage(images, 3, gap=2)
    assert joined.shape == (66, 100, 4)
    assert (joined[34:66, 34:66, :3] == images[4]).all()
    assert (joined[34:, 68:, 3] == 0).all()


def test_best_so_far_never_falls_and_ignores_nan() -> None:
    assert best_so_far(np.array([0.1, np.nan, 0.0, 0.4, 0.2])).tolist() == [0.1, 0.1, 0.1, 0.4, 0.4]
