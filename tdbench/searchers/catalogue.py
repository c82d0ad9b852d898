"""What is installed, as the core knows it: found out by a process of its own, checked, and never imported here.

A plugin that ends that process, does not answer in time, or sends what is no message has failed; every other plugin is
listed all the same.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tdbench.base.channel import BadMessage, ChannelClosed, Message
from tdbench.base.errors import UserError
from tdbench.base.process import ChildProcess
from tdbench.base.text import plain_line
from tdbench.searchers.registry import (
    MOST_VARIANTS,
    REDUCTIONS,
    SEARCHERS,
    Kind,
    Plugins,
    PluginSource,
    Registrations,
    check_batch,
    identity,
    plugin_sources,
    refuse_failed_extras,
)

SECONDS = 60.0  # in which one plugin must load and register, in a process of its own
SECONDS_TOGETHER = 15.0  # the same where all plugins share a process, which is only the quicker way
MOST_TEXT = 1 << 20  # bytes that one plugin may say of itself
_known: dict[Any, tuple[Plugins, dict[str, int]]] = {}
_FLAGS = {
    "searcher": ("sees_images", "baseline", "reducible", "takes_start"),
    "reduction": ("sees_images", "takes_dim"),
}


def find_plugins(
    extra: Iterable[str] = (),
    *,
    searchers: Iterable[str] | None = None,
    extra_must_load: bool = False,
    seconds: float = SECONDS,
) -> Plugins:
    """Every installed plugin and the `extra` ones, by what they register.

    Where an `extra` one has taken a name from an installed one, a line on stderr says so.

    Args:
        extra: ``.py`` files or names of modules.
        searchers: names that will be looked up: only the variants of their families are listed; of all by default.
        seconds: in which one plugin must load and register.

    Raises:
        UserError: one of the `extra` plugins fails, and they must load.
    """
    extra = [str(name) for name in extra]
    families = None if searchers is None else sorted({name.partition(":")[0] for name in searchers})
    found = _remembered(plugin_sources(extra), families, seconds)
    if extra_must_load:
        refuse_failed_extras(found, extra)
    for registrations in found.kinds:
        for name, note in registrations.notes.items():
            if families is None or registrations.kind is not SEARCHERS or name in families:
                print(f"note: {note}", file=sys.stderr)
    return found


def _remembered(sources: list[PluginSource], families: list[str] | None, seconds: float) -> Plugins:
    """What these plugins register; asked again only where they, or a file of theirs, have changed."""
    key = (tuple(sources), None if families is None else tuple(families), tuple(sys.path))
    if key in _known:
        found, files = _known[key]
        if files == _changed(files):
            return found
    answers = _answers(sources, families, min(seconds, SECONDS_TOGETHER))
    if any(isinstance(answer, str) for answer in answers):  # whoever it was, the others must not suffer from it
        answers = [_answers([source], families, seconds)[0] for source in sources]
    found = _plugins(sources, answers)
    if not found.failures:
        files = _changed(str(answer.get("file", "")) for answer in answers if not isinstance(answer, str))
        _known[key] = found, files
    return found


def _changed(files: Iterable[str]) -> dict[str, int]:
    """File -> when it was changed; 0 for one that is not there."""
    return {file: Path(file).stat().st_mtime_ns if file and Path(file).is_file() else 0 for file in files}


def _answers(sources: Sequence[PluginSource], families: list[str] | None, seconds: float) -> list[dict[str, Any] | str]:
    """For each plugin what it registers, or what was wrong where it ended or held up the process."""
    answers: list[dict[str, Any] | str] = []
    child = ChildProcess("tdbench.searchers.catalogue_process", most_text=MOST_TEXT)
    try:
        child.channel.send(Message({"sources": [asdict(source) for source in sources], "families": families}))
        while len(answers) < len(sources):
            values = child.channel.receive_waiting(seconds).values
            if values.get("done") == len(answers):
                answers.append(dict(values))
        return answers
    except TimeoutError:
        failure = f"loading it did not end within {seconds:g} s"
    except ChannelClosed:
        failure = f"while it was loaded, the process {child.epitaph()}"
    except BadMessage as bad:
        failure = f"while it was loaded, {bad}"
    finally:
        child.kill()
    return [*answers, *[failure] * (len(sources) - len(answers))]


def _plugins(sources: Sequence[PluginSource], answers: Sequence[dict[str, Any] | str]) -> Plugins:
    claims: dict[str, list[Any]] = {"searcher": [], "reduction": [identity()]}
    failures: dict[str, str] = {}
    modules: set[tuple[str, str]] = set()
    for source, answer in zip(sources, answers, strict=True):
        name = source.name
        if name in failures or any(name == other.name for other in sources[: sources.index(source)]):
            name = f"{name} ({source.origin})"
        if isinstance(answer, str):
            failures[name] = f"{answer} [{source.origin}]"
        elif "failure" in answer:
            failures[name] = plain_line(answer["failure"])
        elif ("module", source.target) in modules and source.kind == "module":
            continue  # an installed plugin, given once more by its module's name
        else:
            modules.add(("module", source.target.partition(":")[0]))
            try:
                for kind in (SEARCHERS, REDUCTIONS):
                    claims[kind.what] += [_registration(kind, source, r) for r in answer[f"{kind.what}s"]]
            except (KeyError, TypeError, ValueError, UserError) as error:
                failures[name] = f"what it registers cannot be read: {plain_line(error)} [{source.origin}]"
    return Plugins(
        Registrations(SEARCHERS, claims["searcher"]), Registrations(REDUCTIONS, claims["reduction"]), failures
    )


def _registration(kind: Kind[Any], source: PluginSource, record: dict[str, Any]) -> Any:
    """A registration whose code is elsewhere, field by field."""
    kind.check_name(record["name"])
    fields: dict[str, Any] = {"name": record["name"], "factory": _elsewhere, "source": source}
    for text in ("summary", "version"):
        fields[text] = plain_line(record[text])
    for flag in _FLAGS[kind.what]:
        if not isinstance(record[flag], bool):
            raise ValueError(f"{flag} must be true or false")
        fields[flag] = record[flag]
    if kind is SEARCHERS:
        fields["batch"] = check_batch(record["batch"])
        fields["variants"] = None if record.get("variants") is None else _listed(record["variants"])
    return kind.registration(**fields)


def _listed(variants: Any) -> Callable[[], Sequence[str]]:
    if isinstance(variants, dict):
        message = plain_line(variants["error"])

        def refuse() -> Sequence[str]:
            raise UserError(message)

        return refuse
    names = tuple(name for name in variants if isinstance(name, str) and name.isprintable())
    if len(names) != len(variants) or len(names) > MOST_VARIANTS:
        raise ValueError(f"variants must be at most {MOST_VARIANTS} printable names")
    return lambda: names


def _elsewhere(*_: Any) -> Any:
    raise TypeError("a plugin's code runs in a process of its own")
