"""What the contracts of all kinds of plugin share: a subject under test, and a class of checks that pytest collects."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from tdbench.base.arguments import members, path_text, strings, text
from tdbench.base.errors import UserError, echo, nearest
from tdbench.searchers.loading import load_plugins
from tdbench.searchers.registry import Plugins, Registered
from tdbench.testing.checks import Call, CheckResult, ContractError, Watched, expect, lines_of_the_author

_TEST = "test_"


@dataclass(frozen=True)
class Subject:
    """What is under test: how to make one, and what it claims to be."""

    name: str
    factory: Callable[[Any], Any]
    sees_images: bool = False
    calls: deque[Call] = field(default_factory=lambda: deque(maxlen=1))

    def _made(self, problem: Any, *methods: str) -> Any:
        """What the factory makes, which must have these methods. The last call of it is kept in `calls`."""
        made = self.factory(problem)
        for method in methods:
            expect(callable(getattr(made, method, None)), f"the factory made {made!r}, which has no {method}()")
        return Watched(made, self.calls)

    def _images(self, n: int, blank: bool = False) -> NDArray[np.float32] | None:
        """(n, 3, 32, 32) random or all zero images, read-only; None for a subject that is given none."""
        if not self.sees_images:
            return None
        images = np.zeros((n, 3, 32, 32), dtype=np.float32)
        if not blank:
            np.random.default_rng(0).standard_normal(out=images, dtype=np.float32)
        images.flags.writeable = False
        return images


S = TypeVar("S", bound=Subject)
R = TypeVar("R", bound=Registered)


class Contract(ABC, Generic[S, R]):
    """The checks of one kind of plugin: each is a method ``test_...``, and its docstring says what it expects.

    A plugin's author subclasses the contract of a kind; pytest then runs each check on an object of its own.

    Attributes:
        what: the kind, as messages call it.
        name: the registered name of what is tested.
        plugins: plugin files or modules to load beside the installed ones.
        factory: instead of a name, ``staticmethod(factory)`` of something that is registered nowhere.
        sees_images: with `factory`, that it is given the images.
    """

    what: ClassVar[str]
    name: str = ""
    plugins: tuple[str, ...] = ()
    factory: Callable[[Any], Any] | None = None
    sees_images: bool = False

    _subject: S | None = None

    def subject(self) -> S:
        """What is tested.

        Raises:
            UserError: there is nothing of that name, or neither `name` nor `factory` was given.
        """
        if self._subject is None:
            self._subject = self._found()
        return self._subject

    def results(self, checks: Sequence[str] | None = None) -> Iterator[CheckResult]:
        """Run the checks of these names, all by default, one result at a time.

        Raises:
            UserError: as `subject`, or there is no such check; at once, not with the first result.
        """
        known = self.checks()
        chosen = known if checks is None else strings("checks", checks)
        for name in chosen:
            if name not in known:
                raise UserError(f"there is no check {echo(name)}{nearest(name, known)}")
        self.subject()
        return (self._result(name) for name in chosen)

    def of(self, tested: str | R, plugins: Sequence[str | os.PathLike[str]]) -> Contract[S, R]:
        """This contract for what has that name, or that registration."""
        several = (plugins,) if isinstance(plugins, str | os.PathLike) else members("plugins", plugins)
        self.plugins = tuple(path_text("a plugin", plugin) for plugin in several)
        if isinstance(tested, str):
            self.name = text(f"the {self.what}", tested)
        elif isinstance(tested, Registered):
            self._subject = self._registered(tested)
        else:
            raise UserError(f"the {self.what} must be a name or a registration, got {echo(tested)}")
        return self

    def among(self, found: Plugins, name: str) -> Contract[S, R]:
        """This contract for what has that name among these plugins."""
        self.name, self._subject = name, self._named(found, name)
        return self

    @classmethod
    def checks(cls) -> tuple[str, ...]:
        """The names of all checks, in the order in which they are run."""
        methods = dict.fromkeys(name for base in reversed(cls.__mro__) for name in vars(base))
        return tuple(name.removeprefix(_TEST) for name in methods if name.startswith(_TEST))

    @abstractmethod
    def _named(self, found: Plugins, name: str) -> S:
        """The subject of that name."""

    @abstractmethod
    def _registered(self, registration: R) -> S:
        """The subject that was registered so."""

    @abstractmethod
    def _claimed(self, name: str, factory: Callable[[Any], Any], claims: Any) -> S:
        """The subject that claims to be what the attributes of `claims` say: a registration, or the contract itself."""

    def _found(self) -> S:
        if self.factory is not None:
            return self._claimed(self.name or "factory", self.factory, self)
        if not self.name:
            raise UserError(
                f"{type(self).__name__} needs a name = '...' (or a factory) to say which {self.what} it tests"
            )
        return self._named(load_plugins(self.plugins, extra_must_load=True), self.name)

    def _result(self, name: str) -> CheckResult:
        """What comes of one check, whatever it raises."""
        check = getattr(self, _TEST + name)
        calls = self.subject().calls
        calls.clear()
        try:
            check()
        except Exception as error:
            details = [*getattr(error, "__notes__", ()), *(f"after {call}" for call in calls)]
            if isinstance(error, ContractError):
                return CheckResult(name, False, str(error), tuple(details))
            details += lines_of_the_author(error)
            return CheckResult(name, False, f"it raised {type(error).__name__}: {error}", tuple(details))
        return CheckResult(name, True, (check.__doc__ or "").strip().partition("\n")[0])
