"""Changes to a trainer's modules at the moment they are imported: `after_import`, `replace_class`, `wrap_once`.

A trainer's plugin runs long before the trainer's own modules exist, and importing those early would load
simulators and CUDA into every process. Loads no trainer.
"""

__all__ = ["after_import", "replace_class", "wrap_once"]

import functools
import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_Action = Callable[[Any], None]
_Around = AbstractContextManager[None]


def after_import(module: str, action: _Action) -> None:
    """Calls `action` with the module once it has been imported; now, if it is there already."""
    loaded = sys.modules.get(module)
    if loaded is not None:
        action(loaded)
        return
    _FINDER.actions.setdefault(module, []).append(action)
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)


def replace_class(
    module: str, name: str, load: Callable[[], type], around: Callable[[], _Around] = nullcontext
) -> None:
    """Makes ``from module import name`` give another class, without importing the module itself.

    The original module is loaded only if somebody asks for another of its names. An already imported module
    gets the class in place of its own.

    Args:
        module: Full name of the trainer's module.
        name: The class in it.
        load: Gives the replacement, on the first use.
        around: Context in which the original module is loaded, should it come to that.
    """
    loaded = sys.modules.get(module)
    if isinstance(loaded, _StandIn):
        loaded.replaced[name] = load
    elif loaded is not None:
        setattr(loaded, name, load())
    else:
        sys.modules[module] = _StandIn(module, {name: load}, around)


def wrap_once(owner: Any, name: str, mark: str, wrapper: Callable[[Any], Any]) -> None:
    """Puts a function around one of a trainer's, unless that was done before.

    Args:
        owner: The trainer's class or module.
        name: Of a function in it.
        mark: Attribute by which what is put there is known again.
        wrapper: Makes it from the trainer's.
    """
    original = getattr(owner, name)
    if not getattr(original, mark, False):
        replacement = functools.wraps(original)(wrapper(original))
        setattr(replacement, mark, True)
        setattr(owner, name, replacement)


class _StandIn(ModuleType):
    def __init__(
        self, name: str, replaced: dict[str, Callable[[], type]], around: Callable[[], _Around]
    ) -> None:
        super().__init__(name, "Stands in for the trainer's module until one of its other names is used.")
        self.replaced = replaced
        self.around = around

    def __getattr__(self, name: str) -> Any:
        replaced = self.__dict__["replaced"]
        if name in replaced:
            return replaced[name]()
        if name.startswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(self._original(), name)

    def _original(self) -> ModuleType:
        if "original" not in self.__dict__:
            del sys.modules[self.__name__]
            try:
                with self.around():
                    self.original = importlib.import_module(self.__name__)
            finally:
                sys.modules[self.__name__] = self
        original: ModuleType = self.__dict__["original"]
        return original


class _Finder(MetaPathFinder):
    """Finds a module as usual, and runs the actions once it has been executed."""

    def __init__(self) -> None:
        self.actions: dict[str, list[_Action]] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        actions = self.actions.pop(fullname, None)
        if actions is None:
            return None
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _ActingLoader(spec.loader, actions)
        return spec


class _ActingLoader(Loader):
    def __init__(self, loader: Loader, actions: list[_Action]) -> None:
        self._loader = loader
        self._actions = actions

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        for action in self._actions:
            action(module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)  # get_source and the like, for tracebacks


_FINDER = _Finder()
