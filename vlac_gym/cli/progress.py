"""Progress bars of commands, on stderr where that is a terminal: `counting`, `training_progress`."""

__all__ = ["counting", "training_progress"]

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from vlac_gym.extras import needs


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar named `what` for the length of the block; gives the function that takes how many of how many are done.

    Raises:
        DependencyNotInstalled: rich is missing.
    """
    with needs("The command line", "cli"):
        from rich.console import Console
        from rich.progress import Progress
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(bar, completed=done, total=total)


@contextmanager
def training_progress(steps: int) -> Iterator[Callable[[int], None]]:
    """A bar over optimiser steps, below the log lines of the training, which go to stderr."""
    with counting("training") as on_progress:
        # While a bar is shown, rich takes what is printed to stderr and puts it above the bar.
        logging.basicConfig(level=logging.INFO, format="%(message)s")
        yield lambda step: on_progress(step, steps)
