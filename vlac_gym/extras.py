"""Packages that only some uses need: `needs` turns their absence into the pip command that brings them."""

__all__ = ["needs"]

from collections.abc import Iterator
from contextlib import contextmanager

from vlac_gym.errors import DependencyNotInstalled


@contextmanager
def needs(what: str, extra: str | None = None, *, get: str | None = None) -> Iterator[None]:
    """A block of imports of optional packages.

    Args:
        what: What needs them, for the message, e.g. ``"The transformers engine"``.
        extra: The extra of this package that brings them.
        get: A sentence that says how to get them if no extra brings them.

    Raises:
        DependencyNotInstalled: One of them is missing or can't be imported; the message names it and the way to get it.

    Example:
        >>> with needs("This example", "vlac"):
        ...     import no_such_package
        Traceback (most recent call last):
        vlac_gym.errors.DependencyNotInstalled: This example needs no_such_package. Run: pip install "vlac-gym[vlac]"
    """
    how = f'Run: pip install "vlac-gym[{extra}]"' if extra is not None else get
    try:
        yield
    except DependencyNotInstalled:
        raise
    except ModuleNotFoundError as e:
        missing = (e.name or str(e)).partition(".")[0]
        raise DependencyNotInstalled(f"{what} needs {missing}. {how}", name=e.name) from e
    except ImportError as e:
        raise DependencyNotInstalled(f"{what} can't import what it needs ({e}). {how}", name=e.name) from e
