"""Groups sequences into batches by token count: `form_batches`, `split_evenly`."""

__all__ = ["MAX_PADDING", "form_batches", "split_evenly"]

from collections.abc import Sequence
from itertools import groupby, pairwise

MAX_PADDING = 0.1
"""Padding allowed per batch, as a share of its real tokens."""


def form_batches(lengths: Sequence[int], max_tokens: int, extra_per_row: int = 0) -> list[list[int]]:
    """Groups sequences of similar length.

    Each batch is padded to its longest sequence by at most `MAX_PADDING` of its real tokens, and holds at most
    `max_tokens` tokens, padding and `extra_per_row` included; a longer sequence gets a batch of its own.

    Args:
        lengths: Tokens of each sequence.
        max_tokens: Bound per batch.
        extra_per_row: Tokens to count on top for each sequence, e.g. for a prefix it attends to.

    Returns:
        Indices into `lengths`, each exactly once; longest first, ties in the given order.
    """
    batches: list[list[int]] = []
    longest = real = 0
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        rows = len(batches[-1]) + 1 if batches else 0
        padded, filled = rows * longest, real + lengths[index]
        if rows and padded + rows * extra_per_row <= max_tokens and padded - filled <= MAX_PADDING * filled:
            batches[-1].append(index)
            real = filled
        else:
            batches.append([index])
            longest = real = lengths[index]
    return _level(batches, lengths)


def _level(batches: list[list[int]], lengths: Sequence[int]) -> list[list[int]]:
    """Splits runs of batches of one length anew, so that none of them is nearly empty."""
    levelled: list[list[int]] = []
    for _, run in groupby(batches, key=lambda batch: (lengths[batch[0]], lengths[batch[-1]])):
        members = list(run)
        if lengths[members[0][0]] == lengths[members[-1][-1]]:
            joined = [index for batch in members for index in batch]
            spans = split_evenly(len(joined), max(map(len, members)))
            levelled += [[joined[i] for i in span] for span in spans]
        else:
            levelled += members
    return levelled


def split_evenly(count: int, largest: int) -> list[range]:
    """Splits `count` items into the fewest runs of at most `largest`, all of nearly the same size."""
    runs = -(-count // largest)
    bounds = [count * i // max(runs, 1) for i in range(runs + 1)]
    return [range(start, stop) for start, stop in pairwise(bounds)]
