"""Results: what follows from them, their file, their words, and the figures made of them."""

from __future__ import annotations

import csv
import math
import re

import numpy as np
import pytest

from tdbench import UserError
from tdbench.report.transfer import charts_of, read_transfer, section, write_result
from tdbench.transfers.gain import Measured
from tdbench.transfers.result import COLUMNS, TransferResult
from tdbench.transfers.words import before, document, gain_table, paragraph

ABOUT = {
    "sources": "50 images", "targets": "50 images", "source_n": 50, "pretrain_steps": 100, "steps": 100,
    "replicates": 6, "engine": "native cpu", "version": "1", "hardware": "a processor",
}  # fmt: skip
SOURCES = {
    "found 1": ("found", 0.2, 0.9), "found 2": ("found", 0.1, 0.6), "found 3": ("found", 0.0, 0.3),
    "all 3 at once": ("all at once", 0.3, math.nan), "random 1": ("random", 0.0, math.nan),
    "$x$ | y": ("class", 0.1, math.nan), "norms of found 1": ("scaled", 0.0, math.nan),
}  # fmt: skip


def made(sets: int = 6) -> TransferResult:
    """Sources whose gains are known, with a little noise, on two targets of each set."""
    rng = np.random.default_rng(0)
    measured = []
    for number in range(sets):
        for target in ("ship", "frog"):
            for mode in ("frozen", "fine-tune"):
                for shots in (2, 8):
                    scratch = rng.normal(0.3, 0.1, 6)
                    for name, (kind, gain, confirmed) in SOURCES.items():
                        after = scratch + gain + rng.normal(0, 0.02, 6)
                        measured.append(Measured(0, number, name, kind, confirmed, target, mode, shots, after, scratch))
    return TransferResult(tuple(measured), ABOUT)


RESULT = made()


def test_questions_are_answered_with_all_positives_in_training():
    answers = {(one.better, one.worse): one.difference.value for one in RESULT.contrasts("frozen")}
    assert answers["found", "random"] == pytest.approx(0.1, abs=0.03)
    assert answers["all at once", "best member"] == pytest.approx(0.1, abs=0.03)
    assert ("votes", "the same tasks without votes") not in answers
    assert RESULT.rank_correlation("frozen").value == pytest.approx(1.0)
    assert RESULT.all_shots == 8 and RESULT.sets == 6


def test_gains_come_by_mode_then_kind_then_shots():
    order = [(gain.mode, gain.kind, gain.shots) for gain in RESULT.gains]
    assert order[:3] == [("fine-tune", "found", 2), ("fine-tune", "found", 8), ("fine-tune", "all at once", 2)]
    assert len(order) == 2 * 5 * 2


def test_affinities_are_those_of_tasks_over_the_targets_of_all_sets():
    found = RESULT.affinities("fine-tune")
    assert found is not None
    assert "norms of found 1" not in found.sources and len(found.targets) == 12
    assert found.targets[0] == "ship, set 1"
    np.testing.assert_allclose(found.affinity.sum(axis=0), 1)
    assert found.sources[found.taxonomy[0].sources[0]] == "all 3 at once"


def test_the_file_has_everything(tmp_path):
    again = TransferResult.load(RESULT.save(tmp_path / "t.npz"))
    assert str(again.records()) == str(RESULT.records()) and again.about == ABOUT
    np.testing.assert_array_equal(again.measured[7].taskness, RESULT.measured[7].taskness)


def test_other_files_are_one_line(tmp_path):
    np.savez(tmp_path / "other.npz", format="x", version=1)
    with pytest.raises(UserError, match="holds no transfer"):
        TransferResult.load(tmp_path / "other.npz")
    with np.load(RESULT.save(tmp_path / "t.npz")) as archive:
        arrays = dict(archive)
    np.savez(tmp_path / "later.npz", **{**arrays, "version": 2})
    with pytest.raises(UserError, match="version 2, this tdbench reads 1"):
        TransferResult.load(tmp_path / "later.npz")
    np.savez(tmp_path / "cut.npz", **{**arrays, "kind": arrays["kind"][:-1]})
    with pytest.raises(UserError, match="is damaged"):
        TransferResult.load(tmp_path / "cut.npz")


def test_words_are_made_from_the_numbers():
    text = paragraph(RESULT)
    assert "Means over 6 sets of 6 replicates, with 95 % intervals over sets." in text
    (found,) = (g for g in RESULT.gains if (g.kind, g.mode, g.shots) == ("found", "frozen", 8))
    assert f"found {found.gain.value:.3f} [{found.gain.low:.3f}, {found.gain.high:.3f}]" in text
    assert re.search(r"found over random 0\.\d+ \[.*?\] \(more\)", text)
    assert len(gain_table(RESULT).rows) == 20


def test_too_few_sets_claim_nothing():
    text = paragraph(made(2))
    assert "an interval needs 4 sets" in text and "undecided without an interval" in text
    assert "unknown (4 sets are needed)" in before(2)


def test_what_can_be_detected_is_said_beforehand():
    assert "alpha 5 % and power 80 %" in before(8)


def test_a_document_has_every_pair():
    known = document(RESULT)
    assert len(known["pairs"]) == len(RESULT.measured)
    assert known["modes"]["frozen"]["affinity"]["sources"][0] == "found 1"


def test_tables_figures_and_page_are_written(tmp_path):
    written = {path.name for path in write_result(RESULT, tmp_path)}
    names = {f"transfer-{name}.png" for name in charts_of(RESULT)}
    assert names <= written and {"transfer.npz", "transfer.csv", "transfer.md"} <= written
    assert {"transfer-gain.png", "transfer-shots.svg", "transfer-taxonomy-frozen.svg"} <= written
    with (tmp_path / "transfer.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert tuple(rows[0]) == COLUMNS and len(rows) == len(RESULT.measured) + 1
    found = RESULT.affinities("frozen")
    with (tmp_path / "transfer-affinity-frozen.csv").open(newline="") as file:
        cells = list(csv.DictReader(file))
    assert len(cells) == found.affinity.size and float(cells[1]["affinity"]) == found.affinity[0, 1]
    with (tmp_path / "transfer-taxonomy-frozen.csv").open(newline="") as file:
        served = [row["source"] for row in csv.DictReader(file) if row["b"] == "2"]
    assert set(served) == {found.sources[i] for i in found.taxonomy[1].sources}
    page = (tmp_path / "transfer.md").read_text()
    assert paragraph(RESULT) in page
    assert all(f"({name})" in page for name in names)


def test_a_folder_of_results_shows_its_transfer(tmp_path):
    assert read_transfer(tmp_path) is None
    RESULT.save(tmp_path / "transfer" / "transfer.npz")
    found = read_transfer(tmp_path)
    assert found is not None
    shown = section(found)
    assert shown["charts"]["gain"][1].startswith("<svg") and shown["tables"][0].rows == gain_table(RESULT).rows
