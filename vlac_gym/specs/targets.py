"""What the text ``module:name`` names: `load_target`."""

__all__ = ["load_target"]

import importlib
from typing import Any


def load_target(target: str) -> Any:
    """Imports what ``module:name`` names; the name may be inside a class, as in ``package.module:Class.method``.

    Raises:
        ImportError: No such module, or one that can't be imported.
        AttributeError: The module has no such name.
    """
    module_name, _, path = target.partition(":")
    found: Any = importlib.import_module(module_name)
    for part in path.split("."):
        found = getattr(found, part)
    return found
