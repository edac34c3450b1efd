"""What reinforcement learning would consume: returns of groups that share a start. Pure functions on arrays.

`group_fidelity`, `GroupFidelity`, `length_return_correlation`.
"""

__all__ = ["GroupFidelity", "group_fidelity", "length_return_correlation"]

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from vlac_gym.extras import needs
from vlac_gym.report_card.statistics import Array

with needs("A report card", "report"):
    from scipy import stats

_TINY = 1e-6


@dataclass(frozen=True)
class GroupFidelity:
    """How a critic's returns rank the rollouts of one start, against the simulator's (GRPO's groups).

    Attributes:
        groups: Groups of at least two rollouts.
        kendall_tau: Mean over groups of Kendall's tau-a of the two returns divided by its largest possible
            value (the simulator's returns are 0 or 1 and tie); None if no group has both outcomes.
        advantage_sign_agreement: Share of rollouts whose advantage (return minus group mean) has the
            simulator's sign, over groups with both outcomes; None if there are none.
        noise_groups: Share of groups in which the simulator sees no difference and the critic does:
            pure-noise gradient.
        lost_groups: Share of groups in which the simulator sees a difference and the critic none.
    """

    groups: int
    kendall_tau: float | None
    advantage_sign_agreement: float | None
    noise_groups: float | None
    lost_groups: float | None


def group_fidelity(
    critic_returns: ArrayLike, sim_returns: ArrayLike, groups: Sequence[Hashable]
) -> GroupFidelity:
    """Compares returns within groups; groups of one rollout are left out."""
    critic, sim = np.asarray(critic_returns, np.float64), np.asarray(sim_returns, np.float64)
    members: dict[Hashable, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    taus, agreements = [], []
    noise = lost = counted = 0
    for indices in members.values():
        if len(indices) < 2:
            continue
        counted += 1
        a, b = critic[indices], sim[indices]
        critic_differs, sim_differs = bool(np.ptp(a) > _TINY), bool(np.ptp(b) > _TINY)
        noise += critic_differs and not sim_differs
        lost += sim_differs and not critic_differs
        if sim_differs:
            taus.append(_tau_of_possible(a, b))
            agreements.append(_sign_agreements(a, b))
    return GroupFidelity(
        groups=counted,
        kendall_tau=float(np.mean(taus)) if taus else None,
        advantage_sign_agreement=float(np.mean(np.concatenate(agreements))) if agreements else None,
        noise_groups=noise / counted if counted else None,
        lost_groups=lost / counted if counted else None,
    )


def length_return_correlation(lengths: ArrayLike, returns: ArrayLike) -> float | None:
    """Pearson correlation of episode length and return; None if one of them does not vary."""
    a, b = np.asarray(lengths, np.float64), np.asarray(returns, np.float64)
    if a.size < 2 or np.ptp(a) <= _TINY or np.ptp(b) <= _TINY:
        return None
    return float(np.corrcoef(a, b)[0, 1])


def _tau_of_possible(critic: Array, sim: Array) -> float:
    if np.ptp(critic) == 0:
        return 0.0
    # Somers' D is tau-a over the share of pairs that the simulator tells apart.
    return float(stats.somersd(sim, critic).statistic)


def _sign_agreements(critic: Array, sim: Array) -> Array:
    agree: Array = (np.sign(_advantage(critic)) == np.sign(_advantage(sim))).astype(np.float64)
    return agree


def _advantage(returns: Array) -> Array:
    centred: Array = returns - returns.mean()
    return np.where(np.abs(centred) <= _TINY, 0.0, centred)
