"""Importing LIBERO and robosuite without what their imports do to a process: `importing_libero`.

LIBERO's import may ask a question on the terminal. robosuite's opens ``/tmp/robosuite.log``, which belongs to whoever
came first on a shared machine; it warns by a deprecated call, which is an error under ``python -W error``; and it
advises on its macro file.
"""

__all__ = ["importing_libero"]

import importlib.util
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from vlac_gym.envs.libero.install import find_libero

_MACROS = "robosuite.macros"


@contextmanager
def importing_libero() -> Iterator[None]:
    """To be held around imports of ``libero`` and ``robosuite``.

    Raises:
        DependencyNotInstalled: LIBERO is not installed.
        ConfigError: Its configuration cannot be read or written, or names folders that are not there.
    """
    find_libero().prepare_import()
    logging.getLogger("robosuite_logs").addFilter(_is_error)
    _preset_macros()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    if _MACROS in sys.modules and "robosuite" in sys.modules:
        sys.modules["robosuite"].macros = sys.modules[_MACROS]  # type: ignore[attr-defined]


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


def _preset_macros() -> None:
    """Loads robosuite's settings before robosuite, which reads them while it is imported: no log file."""
    if _MACROS in sys.modules:
        return
    found = importlib.util.find_spec("robosuite")
    for root in list(found.submodule_search_locations or ()) if found is not None else []:
        spec = importlib.util.spec_from_file_location(_MACROS, f"{root}/macros.py")
        if spec is not None and spec.loader is not None:
            macros = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(macros)
            macros.FILE_LOGGING_LEVEL = None  # type: ignore[attr-defined]
            sys.modules[_MACROS] = macros
