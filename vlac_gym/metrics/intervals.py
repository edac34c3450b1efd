"""Intervals of measured shares: `wilson_interval`. Python's standard library alone."""

__all__ = ["wilson_interval"]

import math
from statistics import NormalDist

_Z = NormalDist().inv_cdf(0.975)


def wilson_interval(hits: int, total: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a share (Wilson, 1927), within [0, 1]; (0, 1) of nothing.

    Args:
        hits: How often it happened, 0..total.
        total: How often it could have.
    """
    if total == 0:
        return 0.0, 1.0
    share, z2 = hits / total, _Z * _Z
    centre = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = _Z * math.sqrt(share * (1 - share) / total + z2 / (4 * total * total)) / (1 + z2 / total)
    return 0.0 if hits == 0 else centre - half, 1.0 if hits == total else centre + half
