"""The report page, as a browser has it: made from synthetic results, opened in headless Chromium."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from tdbench.base.errors import UserError
from tdbench.cli.report import report
from tdbench.report.page import write_figures, write_report
from tdbench.settings import RunSettings
from tdbench.space.task_space import TaskSpace
from tdbench.store.confirmations import engine_tag, space_references
from tdbench.store.log import Asked, Store
from tdbench.store.rows import CHECKPOINTS, Row, append_row, leaderboard_path, row_to_json

HOSTILE = "<script>alert(1)</script>\"'&$x_{$"
SEARCHERS = ("twopointsde", "cmaes", "random", HOSTILE)
ENGINE = ("reference", "cpu", "")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SWITCHES = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-extensions"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--window-size=1400,1000", "--enable-logging=stderr", "--dump-dom"),
)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


def fill(
    out: Path,
    spaces: list[TaskSpace],
    searchers: tuple[str, ...] = SEARCHERS,
    n_seeds: int = 5,
    budget: int = 120,
    recommend: str = "searcher",
) -> None:
    """Write results of runs that never happened: per searcher its own level, per run its own luck."""
    generator = np.random.default_rng(0)
    with Store(out) as store:
        for space in spaces:
            store.add_space(space)
            tasks = space_references(store, space.identity)
            means = np.array([{"class": 0.55, "pixel": 0.7, "random": 0.0}[task.kind] for task in tasks])
            values = means[:, None] + generator.normal(0, 0.08, (len(tasks), 32))
            labels = np.array([task.labels for task in tasks])
            store.add_confirmations(space.identity, engine_tag(*ENGINE), labels, values)
            for k, searcher in enumerate(searchers):
                for seed in range(n_seeds):
                    settings = RunSettings(
                        searcher=searcher,
                        data="digits",
                        n=space.n,
                        ratio=space.ratio,
                        seed=seed,
                        budget=budget,
                        recommend=recommend,
                    )
                    _add_run(store, out, space, settings, level=0.45 - 0.1 * k, generator=generator)


def _add_run(
    store: Store, out: Path, space: TaskSpace, settings: RunSettings, *, level: float, generator: np.random.Generator
) -> None:
    seed, budget = settings.seed, settings.budget
    record = store.begin(settings.key(space), 1, space.identity, settings, "1.0", ENGINE)
    failed = settings.searcher == HOSTILE and seed == 0
    count = budget // 3 if failed else budget
    labels = space.random_labelings(count, seed)
    told = (level - 0.1 + 0.2 * np.arange(count) / budget + generator.normal(0, 0.2, count)).clip(-1, 1)
    store.append([(record.id, Asked(0, b"digest", labels, told))], {record.id: 12.5})
    confirmed = [level * share**0.3 + generator.normal(0, 0.05) for share in CHECKPOINTS]
    row = _row(space, settings, record.id, told, confirmed, failed)
    recommended = {} if failed else {1.0: labels[-1]}
    store.finish(record.id, row.status, row.error, row.seconds, row_to_json(row), recommended)
    append_row(leaderboard_path(out, space.name), row)


def _row(
    space: TaskSpace, settings: RunSettings, run: str, told: np.ndarray, confirmed: list[float], failed: bool
) -> Row:
    nothing = float("nan")
    points = [nothing] * 4 if failed else confirmed
    return Row(
        space=space.identity,
        data=space.source,
        classes="|".join(space.classes),
        n=space.n,
        ratio=space.ratio,
        space_seed=space.seed,
        split="stratified",
        steps=100,
        lr=1e-3,
        searcher=settings.searcher,
        searcher_version="1.0",
        sees_images=settings.searcher == "cmaes",
        seed=settings.seed,
        budget=settings.budget,
        batch=settings.batch,
        replicates=1,
        noise="fresh",
        confirm=32,
        recommend=settings.recommend,
        told=float(told.max()),
        recommended_told=float(told.max()),
        confirmed=points[3],
        confirmed_se=nothing if failed else 0.02,
        optimism=float(told.max()) - points[3],
        confirmed_10=points[0],
        confirmed_20=points[1],
        confirmed_50=points[2],
        distinct=len(told),
        evaluations=len(told),
        trainings=len(told),
        seconds=12.5,
        status="crash" if failed else "ok",
        error="RuntimeError: <b>bold</b> & broken" if failed else "",
        engine=ENGINE[0],
        engine_detail=ENGINE[2],
        device=ENGINE[1],
        hardware="a processor (2 cores)",
        versions="python=3.11 tdbench=0.1.0",
        timestamp="2026-01-01T00:00:00Z",
        run=run,
    )


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output folder with results of four searchers on two spaces, and its report."""
    out = tmp_path_factory.mktemp("results")
    fill(out, [TaskSpace("digits", n=n, ratio=4, engine="reference") for n in (10, 50)])
    write_report(out)
    return out


@pytest.fixture(scope="module")
def text(results: Path) -> str:
    return (results / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output folder with one run."""
    out = tmp_path_factory.mktemp("small")
    fill(out, [TaskSpace("digits", n=10, engine="reference")], SEARCHERS[:1], n_seeds=1, budget=32)
    return out


@pytest.fixture(scope="module")
def dump_dom(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """``dump_dom(page)``: the document after its scripts ran in Chromium, which must have nothing to complain about."""
    folder = tmp_path_factory.mktemp("browser")

    def dump(page: str) -> str:
        path = folder / "page.html"
        path.write_text(page, encoding="utf-8")
        command = [str(CHROMIUM), *SWITCHES, f"--user-data-dir={folder / 'profile'}", path.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
        return done.stdout

    return dump


@pytest.fixture
def browse(text: str, dump_dom: Callable[[str], str]) -> Callable[..., Any]:
    """``browse(body, width)``: what that function body returns in the page, opened in a frame of that width."""

    def open_page(body: str, width: int = 1280) -> Any:
        probe = (
            "<script>const probe = document.createElement('pre'); probe.id = 'probe';"
            f"probe.textContent = JSON.stringify((() => {{ {body} }})()); top.document.body.append(probe);</script>"
        )
        # The page's policy forbids scripts that are not its own, so the copy that is probed goes without it.
        page = re.sub(r"<meta http-equiv[^>]*>", "", text, count=1).replace("</body>", f"{probe}</body>")
        frame = f'<!doctype html><iframe srcdoc="{html.escape(page)}" width="{width}" height="900" style="border: 0">'
        found = re.search(r'<pre id="probe">(.*?)</pre>', dump_dom(frame), flags=re.S)
        assert found, "the probe did not run"
        return json.loads(html.unescape(found[1]))

    return open_page


FIRST_RANKING = "const table = document.querySelector('#space-1 table.sortable');"
NAMES = (
    "[...table.tBodies[0].rows].filter(r => !r.hidden && !r.classList.contains('reference'))"
    ".map(r => r.cells[1].textContent.trim())"
)


@needs_browser
def test_the_page_runs_its_script_under_its_own_policy(text: str, dump_dom: Callable[[str], str]) -> None:
    assert '<button type="button">confirmed</button>' in dump_dom(text)


@needs_browser
def test_a_header_sorts_by_its_column_and_then_the_other_way_round(browse: Callable[..., Any]) -> None:
    values = "[...table.tBodies[0].rows].map(r => r.cells[3].dataset.value).filter(Boolean).map(Number)"
    down, first, up, second = browse(
        f"{FIRST_RANKING} const header = table.tHead.rows[0].cells[3], button = header.querySelector('button');"
        f"button.click(); const down = {values}, first = header.getAttribute('aria-sort');"
        f"button.click(); return [down, first, {values}, header.getAttribute('aria-sort')];"
    )
    assert down == sorted(down, reverse=True) and len(down) == len(SEARCHERS)
    assert up == down[::-1]
    assert (first, second) == ("descending", "ascending")


@needs_browser
def test_rows_without_a_value_stay_last_however_a_table_is_sorted(browse: Callable[..., Any]) -> None:
    last = "table.tBodies[0].rows[table.tBodies[0].rows.length - 1].className"
    assert browse(
        f"{FIRST_RANKING} const button = table.querySelector('button'); button.click(); const a = {last};"
        f"button.click(); return [a, {last}];"
    ) == ["reference", "reference"]


@needs_browser
def test_the_filter_leaves_the_searchers_that_match(browse: Callable[..., Any]) -> None:
    names, count, cards, back = browse(
        f"{FIRST_RANKING} const field = document.querySelector('#filter input');"
        "const type = (text) => { field.value = text; field.dispatchEvent(new Event('input')); };"
        f"type('CMA'); const names = {NAMES}, count = document.querySelector('#filter output').textContent;"
        "const cards = [...document.querySelectorAll('.card:not([hidden])')].map(c => c.dataset.searcher);"
        f"type(''); return [names, count, [...new Set(cards)], {NAMES}.length];"
    )
    assert names == ["cmaes sees images"]
    assert count == "1 of 4 searchers"
    assert cards == ["cmaes"]
    assert back == len(SEARCHERS)


@needs_browser
def test_tables_and_filter_are_reached_and_used_by_keyboard(browse: Callable[..., Any]) -> None:
    assert browse(
        "const reachable = [...document.querySelectorAll('th button, #filter input, summary, .scroll')];"
        "return reachable.every(e => e.tabIndex === 0) && reachable.length > 30;"
    )


@needs_browser
def test_a_hostile_name_is_text_everywhere(browse: Callable[..., Any]) -> None:
    scripts, in_table, in_figure, bold = browse(
        f"{FIRST_RANKING} const name = {json.dumps(HOSTILE).replace('</', '<' + chr(92) + '/')};"
        "return [document.scripts.length, table.textContent.includes(name),"
        "[...document.querySelectorAll('svg text')].some(t => t.textContent.includes(name)),"
        "document.querySelectorAll('pre b').length];"
    )
    assert scripts == 2  # the page's own and this probe
    assert in_table and in_figure
    assert bold == 0


@needs_browser
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits_its_window(browse: Callable[..., Any], width: int) -> None:
    needed, inner, outside = browse(
        "document.querySelectorAll('details').forEach(d => { d.open = true; });"
        "const sticksOut = (e) => !e.closest('.scroll, svg') && e.getBoundingClientRect().right > innerWidth + 1;"
        "const all = [...document.body.querySelectorAll('*')];"
        "return [document.documentElement.scrollWidth, innerWidth, all.filter(sticksOut).map(e => e.tagName)];",
        width,
    )
    assert inner == width
    assert outside == []
    assert needed <= inner


@needs_browser
def test_every_image_of_a_discovered_task_shows_a_piece_of_the_sprite(browse: Callable[..., Any]) -> None:
    shown = browse(
        "const card = document.querySelector('#space-2 .card');"
        "return [...card.querySelectorAll('.positives i')].map(i => ["
        "getComputedStyle(i).backgroundImage.slice(0, 19), i.getBoundingClientRect().width > 20]);"
    )
    assert shown == [['url("data:image/png', True]] * 10


def test_the_page_asks_nothing_of_the_network(text: str) -> None:
    assert not re.findall(r"https?://[^\s\"'<]*", text)
    assert "default-src 'none'" in text
    assert not re.findall(r"(?:src|href)=\"(?!#|data:)[^\"]*", text)


def test_the_page_shows_failures_with_their_errors_and_counts_them(text: str) -> None:
    assert "RuntimeError: &lt;b&gt;bold&lt;/b&gt; &amp; broken" in text
    assert "1 failed run(s) count as taskness" in text


def test_ids_are_unique(text: str) -> None:
    ids = re.findall(r"\sid=\"([^\"]*)\"", text)
    assert len(ids) == len(set(ids))


def test_every_reference_inside_a_figure_has_its_target(text: str) -> None:
    ids = set(re.findall(r"\sid=\"([^\"]*)\"", text))
    assert set(re.findall(r"(?:href=\"#|url\(#)([^\")]*)", text)) <= ids


def test_spaces_enough_bring_a_critical_difference_diagram(tmp_path: Path) -> None:
    spaces = [TaskSpace("digits", n=10, seed=seed, engine="reference") for seed in range(5)]
    fill(tmp_path, spaces, SEARCHERS[:3], n_seeds=1, budget=32)
    assert "Average ranks over 5 spaces, critical difference" in write_report(tmp_path).read_text(encoding="utf-8")


def test_a_leaderboard_without_a_log_is_reported_without_pictures(small: Path, tmp_path: Path) -> None:
    shutil.copytree(small / "leaderboards", tmp_path / "leaderboards")
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert "Told against confirmed" in text and "Discovered tasks" not in text


def test_runs_that_go_on_are_counted_but_not_shown(tmp_path: Path) -> None:
    space = TaskSpace("digits", n=10, engine="reference")
    fill(tmp_path, [space], SEARCHERS[:1], n_seeds=1, budget=32)
    settings = RunSettings(searcher="random", n=10, budget=32)
    with Store(tmp_path) as store:
        store.begin("key", 1, space.identity, settings, "1.0", ENGINE)
    assert "1 run not finished yet" in write_report(tmp_path).read_text(encoding="utf-8")


def test_a_space_on_which_every_run_failed_is_reported(tmp_path: Path) -> None:
    fill(tmp_path, [TaskSpace("digits", n=10, engine="reference")], (HOSTILE,), n_seeds=1, budget=32)
    assert "RuntimeError" in write_report(tmp_path).read_text(encoding="utf-8")


def test_figures_are_written_for_every_space_and_over_spaces(results: Path, tmp_path: Path) -> None:
    written = write_figures(results, tmp_path)
    assert len(set(written)) == 2 * 3 + 2
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written)


def test_figures_of_one_space_under_two_protocols_do_not_overwrite_each_other(tmp_path: Path) -> None:
    space = TaskSpace("digits", n=10, engine="reference")
    for recommend in ("searcher", "best"):
        fill(tmp_path, [space], ("random",), n_seeds=1, budget=32, recommend=recommend)
    written = write_figures(tmp_path, tmp_path / "figures")
    assert len(set(written)) == len(written) == 6
    assert sum("recommend-best" in path.name for path in written) == 3


def test_the_command_writes_where_it_is_told_and_says_so(small: Path, tmp_path: Path) -> None:
    page = tmp_path / "deep" / "page.html"
    done = CliRunner().invoke(report, ["--out", str(small), "--to", str(page), "--figures", str(tmp_path / "f")])
    assert done.exit_code == 0, done.output
    assert page.is_file() and str(page) in done.output


def test_no_results_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no"):
        write_report(tmp_path / "nowhere")
    with pytest.raises(UserError, match="there is no leaderboard"):
        write_report(tmp_path)


def test_a_page_that_cannot_be_written_is_an_error(small: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_report(small, tmp_path / "file" / "page.html")
