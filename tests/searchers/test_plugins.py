"""Loading plugins: every one on its own, whatever it does, and a clear line for every name that cannot be used."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest

from tdbench import Problem, UserError
from tdbench.searchers import hookspecs
from tdbench.searchers.catalogue import find_plugins
from tdbench.searchers.loading import load_plugins
from tdbench.searchers.registry import Plugins

PROBLEM = Problem(dim=10, n_images=10, n_positives=2, batch_size=4, budget=8, seed=0)
MISBEHAVING = Path(__file__).parents[1] / "fixtures" / "misbehaving.py"
GOOD = """
import numpy as np
from tdbench import hookimpl

class Good:
    \"\"\"a good one
    with more to say\"\"\"
    def __init__(self, problem): self.problem = problem
    def ask(self, n): return np.zeros((n, self.problem.dim))
    def tell(self, scores, loss): pass

@hookimpl
def register_searchers(register):
    {body}
"""


def write(folder: Path, name: str, body: str = 'register("good", Good)') -> str:
    path = folder / f"{name}.py"
    path.write_text(GOOD.format(body=body))
    return str(path)


def load_text(folder: Path, text: str) -> Plugins:
    path = folder / "broken.py"
    path.write_text(text)
    return load_plugins([str(path), write(folder, "neighbour")])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import no_such_module_anywhere", "ModuleNotFoundError: No module named 'no_such_module_anywhere'"),
        ("def broken(:", "SyntaxError"),
        ("raise SystemExit(5)", "SystemExit: 5"),
        ("class Odd(BaseException): pass\nraise Odd('two\\nlines')", "Odd: two lines"),
        (GOOD.format(body="raise ValueError('while registering')"), "ValueError: while registering"),
        (GOOD.format(body="import sys; sys.exit(1)"), "SystemExit: 1"),
        (GOOD.format(body="register('half', Good); raise ValueError('half way')"), "ValueError: half way"),
        (GOOD.format(body="register('twice', Good); register('twice', Good)"), "'twice' is registered twice"),
        (GOOD.format(body="register('a\\nb', Good)"), "1 to 80 printable characters, got 'a\\nb'"),
        (GOOD.format(body="register('', Good)"), "1 to 80 printable characters, got ''"),
        (GOOD.format(body="register('x' * 81, Good)"), "1 to 80 printable characters"),
        (GOOD.format(body="register('\\x1b[31mred', Good)"), "printable characters"),
        (GOOD.format(body="register(7, Good)"), "printable characters, got 7"),
        (GOOD.format(body="register('notcallable', 'Good')"), "must be callable, got 'Good'"),
        (GOOD.format(body="register('odd', Good, colour='red')"), "unexpected keyword argument 'colour'"),
        (GOOD.format(body="register('a+b', Good)"), "must have no '+', which joins it to a reduction, got 'a+b'"),
        (GOOD.replace("(register)", "(registre)").format(body="pass"), "registre"),
    ],
)
def test_a_broken_plugin_is_reported_and_harms_no_other(tmp_path: Path, text: str, said: str) -> None:
    found = load_text(tmp_path, text)
    assert said in found.failures["broken"]
    assert "\n" not in found.failures["broken"]
    assert "good" in found.searchers
    assert "random" in found.searchers
    assert not {"half", "twice", "odd"} & set(found.searchers)


@pytest.mark.parametrize(
    ("text", "found", "expected"),
    [
        (
            GOOD.format(body="register('odd', Good, colour='red')"),
            "got register('odd', <class",
            "expected register(name, factory, *, summary='', version=None, sees_images=False, baseline=False",
        ),
        (
            GOOD.format(body="register('odd')"),
            "got register('odd') of a searcher",
            "expected register(name, factory, *, summary=''",
        ),
        (GOOD.format(body="register('odd', 'Good')"), "got 'Good'", "expected factory(problem) -> Searcher"),
        (
            GOOD.replace("(register)", "(registre)").format(body="pass"),
            "register_searchers(registre)",
            "expected register_searchers(register) or register_reductions(register)",
        ),
        (
            GOOD.replace("register_searchers", "register_searcher").format(body="pass"),
            "unknown hook 'register_searcher'",
            "expected register_searchers(register) or register_reductions(register)",
        ),
    ],
)
def test_an_error_about_a_plugin_quotes_the_definition_found_and_the_one_expected(
    tmp_path: Path, text: str, found: str, expected: str
) -> None:
    said = load_text(tmp_path, text).failures["broken"]
    assert found in said
    assert expected in said


def test_ctrl_c_while_loading_is_not_taken_for_a_broken_plugin(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        load_text(tmp_path, "raise KeyboardInterrupt")


def test_an_unknown_searcher_names_the_plugins_that_failed(tmp_path: Path) -> None:
    found = load_text(tmp_path, "raise RuntimeError('no')")
    with pytest.raises(UserError, match="plugins that failed to load: broken; see `tdbench searchers`"):
        found.searcher("not-there")


def test_a_name_claimed_by_two_plugins_is_refused_naming_both(tmp_path: Path) -> None:
    first, second = write(tmp_path, "first"), write(tmp_path, "second")
    found = load_plugins([first, second])
    assert "good" not in found.searchers
    with pytest.raises(UserError, match=r"claimed by two plugins, first \(.*first.py\) and second \(.*second.py\)"):
        found.searcher("good")
    assert found.searcher("random")[0].name == "random"


def test_a_plugin_that_the_user_names_wins_over_an_installed_one_with_a_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, "mine", "register('random', Good)")
    for _ in range(2):  # what is remembered is said again
        found = find_plugins([path], searchers=["random"], extra_must_load=True)
        assert found.searcher("random")[0].origin == path
        (note,) = capsys.readouterr().err.splitlines()
        assert note.startswith(f"note: searcher 'random' is that of {path}, given with --plugin, and not that of the")
        assert "tdbench" in note
    assert load_plugins([path]).searchers["random"].origin == path
    find_plugins([path], searchers=["cmaes"])
    assert capsys.readouterr().err == ""


def test_a_family_claimed_by_two_plugins_refuses_its_variants(tmp_path: Path) -> None:
    paths = [write(tmp_path, name, 'register("nevergrad", Good)') for name in ("first", "second")]
    with pytest.raises(UserError, match="'nevergrad' is claimed by two plugins"):
        load_plugins(paths).searcher("nevergrad:TwoPointsDE")


def test_a_plugin_file_may_have_the_name_of_an_installed_plugin(tmp_path: Path) -> None:
    found = load_plugins([write(tmp_path, "baselines")])
    assert found.failures == {}
    assert {"good", "random"} <= set(found.searchers)


def test_two_files_of_one_name_are_two_plugins(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    paths = [write(tmp_path, "same", 'register("one", Good)'), write(tmp_path / "sub", "same", 'register("two", Good)')]
    found = load_plugins(paths)
    assert found.failures == {}
    assert {"one", "two"} <= set(found.searchers)


def test_a_plugin_given_twice_is_loaded_once(tmp_path: Path) -> None:
    path = write(tmp_path, "mine")
    found = load_plugins([path, path])
    assert (found.searchers.conflicts, found.failures) == ({}, {})
    assert "good" in found.searchers


def test_an_installed_plugin_may_be_given_by_its_module_name_as_well() -> None:
    found = load_plugins(["tdbench_plugins.baselines"])
    assert (found.searchers.conflicts, found.failures) == ({}, {})
    assert "random" in found.searchers


def test_a_missing_plugin_file_is_reported(tmp_path: Path) -> None:
    found = load_plugins([str(tmp_path / "missing.py")])
    assert "no plugin file" in found.failures["missing"]


def test_a_module_of_that_name_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "an_importable_plugin")
    monkeypatch.syspath_prepend(tmp_path)
    assert load_plugins(["an_importable_plugin"]).searchers["good"].origin == "an_importable_plugin"


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("twopointde", "'twopointsde'"), ("CMAES", "'cmaes'"), ("rando", "'random'"), ("clustered_random", "'clustered-")],
)
def test_an_unknown_name_is_told_the_nearest_ones(name: str, nearest: str) -> None:
    with pytest.raises(UserError, match=f"unknown searcher '{name}'; did you mean .*{nearest}"):
        load_plugins().searcher(name)


def test_a_name_like_no_other_is_told_all_known_ones() -> None:
    with pytest.raises(UserError, match=r"known are .*clustered-random, cmaes, .*nevergrad, .*random"):
        load_plugins().searcher("zzzzzzzz")


def test_variants_are_searchers_of_their_own() -> None:
    registration, variant = load_plugins().searcher("optuna:RandomSampler")
    assert (registration.name, variant) == ("optuna", "RandomSampler")
    assert registration.make(PROBLEM, variant).ask(2).shape == (2, 10)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("optuna", "needs a variant, optuna:NAME"),
        ("optuna:", "unknown searcher 'optuna:'"),
        ("optuna:RandomSamler", "did you mean 'optuna:RandomSampler'"),
        ("optuna:randomsampler", "did you mean 'optuna:RandomSampler'"),
        ("random:thing", "unknown searcher 'random:thing'"),
    ],
)
def test_an_unknown_variant_is_told_the_nearest_ones(name: str, said: str) -> None:
    with pytest.raises(UserError) as error:
        load_plugins().searcher(name)
    assert said in str(error.value)


def test_variants_that_cannot_be_listed_are_one_clear_line(tmp_path: Path) -> None:
    path = write(tmp_path, "family", 'register("family", Good, variants=lambda: 1 / 0)')
    with pytest.raises(UserError, match="the variants of 'family' cannot be listed: ZeroDivisionError"):
        load_plugins([path]).searcher("family:any")


def test_the_listing_has_summary_version_and_origin(tmp_path: Path) -> None:
    good = load_plugins([write(tmp_path, "mine")]).searchers["good"]
    assert (good.summary, good.version, good.plugin) == ("a good one", "", "mine")
    assert good.origin.endswith("mine.py")
    random = load_plugins().searchers["random"]
    assert (random.origin, random.baseline) == ("tdbench", True)
    assert random.version
    assert all(registration.summary for registration in load_plugins().searchers.values())


def test_a_file_that_was_changed_is_loaded_afresh(tmp_path: Path) -> None:
    path = write(tmp_path, "mine")
    load_plugins([path])
    write(tmp_path, "mine", 'register("renamed_since", Good)')
    assert "renamed_since" in load_plugins([path]).searchers


REDUCTION = """
from tdbench import hookimpl

class Flat:
    \"\"\"all scores are one
    and no more\"\"\"
    dim = 1
    def __init__(self, problem): self.n = problem.n_images
    def scores(self, vectors): return vectors.repeat(self.n, axis=1)

@hookimpl
def register_reductions(register):
    {body}
"""


def write_reduction(folder: Path, name: str, body: str = 'register("flat", Flat)') -> str:
    path = folder / f"{name}.py"
    path.write_text(REDUCTION.format(body=body))
    return str(path)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("register('half', Flat); raise ValueError('half way')", "ValueError: half way"),
        ("register('twice', Flat); register('twice', Flat)", "reduction 'twice' is registered twice"),
        ("register('identity', Flat)", "'identity' is tdbench's own"),
        ("register('flat', 'Flat')", "must be callable, got 'Flat'"),
        ("register('flat', Flat, colour='red')", "unexpected keyword argument 'colour'"),
        *(
            (f"register({name!r}, Flat)", f"letters, digits, - and _, a letter first, got {name!r}")
            for name in ("", "a+b", "a:b", "a,b", "a b", "2d", "größe", "x" * 81, 7, "a\n")
        ),
    ],
)
def test_a_broken_reduction_is_reported_and_harms_no_other(tmp_path: Path, body: str, said: str) -> None:
    found = load_plugins([write_reduction(tmp_path, "broken", body), write_reduction(tmp_path, "neighbour")])
    assert said in found.failures["broken"]
    assert {"flat", "identity", "pca"} <= set(found.reductions)
    assert not {"half", "twice"} & set(found.reductions)


def test_a_plugin_that_fails_in_one_hook_brings_nothing_by_the_other(tmp_path: Path) -> None:
    path = write_reduction(tmp_path, "both", "raise ValueError('no')")
    with Path(path).open("a") as file:
        file.write('\n\n@hookimpl\ndef register_searchers(register):\n    register("half", Flat)\n')
    found = load_plugins([path])
    assert "ValueError: no" in found.failures["both"]
    assert "half" not in found.searchers


def test_a_plugin_may_bring_both(tmp_path: Path) -> None:
    path = write_reduction(tmp_path, "both")
    with Path(path).open("a") as file:
        file.write('\n\n@hookimpl\ndef register_searchers(register):\n    register("flat", Flat)\n')
    found = load_plugins([path])
    assert found.failures == {}
    assert found.searchers["flat"].plugin == found.reductions["flat"].plugin == "both"


def test_a_reduction_claimed_by_two_plugins_is_refused_naming_both(tmp_path: Path) -> None:
    found = load_plugins([write_reduction(tmp_path, "first"), write_reduction(tmp_path, "second")])
    with pytest.raises(UserError, match=r"claimed by two plugins, first \(.*first.py\) and second \(.*second.py\)"):
        found.reduction("flat:3")
    assert found.reduction("pca:3")[1] == 3


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nkt:20", "unknown reduction 'nkt:20'; did you mean 'ntk:D'?"),
        ("NTK:20", "unknown reduction 'NTK:20'; did you mean 'ntk:D'?"),
        ("", "unknown reduction ''; known are clusters:D, features:D, identity, ntk:D, pca:D"),
        ("ntk", "needs its number of dimensions, as in ntk:20"),
        *(
            (f"ntk:{dim}", "must be ntk:D with a whole number")
            for dim in ("", "0", "-3", "+3", "03", "2.5", "x", " 3", "٣")
        ),
        ("ntk:20:3", "must be ntk:D with a whole number"),
        ("identity:50", "takes no number of dimensions: write identity, not identity:50"),
    ],
)
def test_a_reduction_that_cannot_be_meant_is_one_clear_line(name: str, said: str) -> None:
    with pytest.raises(UserError) as error:
        load_plugins().reduction(name)
    assert said in str(error.value)


def test_a_searcher_named_with_its_reduction_is_told_apart_into_both() -> None:
    with pytest.raises(UserError, match=r"give searcher cmaes and reduction ntk:20"):
        load_plugins().searcher("cmaes+ntk:20")


def test_the_listing_has_a_reductions_summary_version_and_origin(tmp_path: Path) -> None:
    found = load_plugins([write_reduction(tmp_path, "mine", 'register("flat", Flat, takes_dim=False)')])
    flat = found.reductions["flat"]
    assert (flat.summary, flat.version, flat.plugin, flat.shown) == ("all scores are one", "", "mine", "flat")
    assert {r.origin for name, r in found.reductions.items() if name != "flat"} == {"tdbench"}
    assert all(r.summary and r.version for name, r in found.reductions.items() if name != "flat")


def test_names_that_look_like_markup_or_formulas_are_names_like_others() -> None:
    found = load_plugins([str(MISBEHAVING)])
    assert found.failures == {}
    for name in ("<script>alert(1)</script>", "=cmd()"):
        searcher = found.searcher(name)[0].make(PROBLEM)
        assert np.array_equal(searcher.ask(3), found.searcher(name)[0].make(PROBLEM).ask(3))


def test_every_hook_and_every_argument_of_it_is_documented() -> None:
    hooks = [value for value in vars(hookspecs).values() if hasattr(value, "tdbench_spec")]
    assert hooks
    for hook in hooks:
        assert hook.__doc__, f"{hook.__name__} has no docstring"
        for argument in inspect.signature(hook).parameters:
            assert argument in hook.__doc__, f"{hook.__name__} does not say what {argument} is"
    for register in (hookspecs.RegisterSearcher.__call__, hookspecs.RegisterReduction.__call__):
        for argument in list(inspect.signature(register).parameters)[1:]:
            assert f"\n            {argument}: " in (register.__doc__ or ""), f"register's {argument} is not documented"
