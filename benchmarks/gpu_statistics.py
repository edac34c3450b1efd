"""Success on the same starts in two simulators: `compare`. Python's standard library alone."""

import math
from collections.abc import Sequence

Z_95 = 1.959964


def compare(name: str, solved: Sequence[bool], recorded: Sequence[bool]) -> str:
    """One line: how many of the same starts each solved, and the difference with its 95 % interval."""
    count, here, there = len(solved), sum(solved), sum(recorded)
    only_here = sum(a and not b for a, b in zip(solved, recorded, strict=True))
    only_there = sum(b and not a for a, b in zip(solved, recorded, strict=True))
    low, high = paired_interval(count, here, there, only_here)
    return (
        f"{name}: expert in closed loop solved {here} of {count} on mujoco-warp, {there} in the recording "
        f"({only_here} here only, {only_there} there only); difference {100 * (here - there) / count:+.1f} points, "
        f"95 % interval {100 * low:+.1f} to {100 * high:+.1f}"
    )


def paired_interval(count: int, first: int, second: int, only_first: int) -> tuple[float, float]:
    """Newcombe's 95 % interval (1998, method 10) of the difference of two shares of the same starts.

    Args:
        count: Starts.
        first: Solved by the first.
        second: Solved by the second.
        only_first: Solved by the first and not by the second.
    """
    both, p, q = first - only_first, first / count, second / count
    neither = count - first - second + both
    (p_low, p_high), (q_low, q_high) = wilson(first, count), wilson(second, count)
    product = first * second * (count - first) * (count - second)
    surplus: float = both * neither - only_first * (second - both)
    surplus = max(surplus - count / 2, 0.0) if surplus > 0 else surplus
    phi = surplus / math.sqrt(product) if product else 0.0

    def reach(a: float, b: float) -> float:
        return math.sqrt(max(a * a - 2 * phi * a * b + b * b, 0.0))

    return p - q - reach(p - p_low, q_high - q), p - q + reach(p_high - p, q - q_low)


def wilson(hits: int, total: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    share, z2 = hits / total, Z_95 * Z_95
    centre = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = Z_95 * math.sqrt(share * (1 - share) / total + z2 / (4 * total * total)) / (1 + z2 / total)
    return centre - half, centre + half
