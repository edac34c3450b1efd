"""How long the search may last: `AttackBudget`, `BUDGETS`, `CHEAT_KINDS`."""

__all__ = ["BUDGETS", "CHEAT_KINDS", "AttackBudget"]

from dataclasses import dataclass

from vlac_gym.data.plans import RECIPES
from vlac_gym.errors import ConfigError, unknown_name

CHEAT_KINDS = (
    "hover",
    "push",
    "empty_hand",
    "block_view",
    "near_miss",
    "beside",
    "drop",
    "wrong_object",
    "stop",
)
"""Kinds of `vlac_gym.data.plans.RECIPES` that are meant to fail."""


@dataclass(frozen=True, kw_only=True)
class AttackBudget:
    """Episodes of a search. Cards are comparable under the same budget.

    Attributes:
        tasks: Tasks that are attacked, at most.
        starts: Initial states of each task.
        variations: Episodes of each scripted cheat at each start, that differ by their seed.
        noise: Of the expert that cheats, in action units.
        kinds: Which cheats, of `vlac_gym.data.plans.RECIPES`.

    Raises:
        ConfigError: A value is out of its range.
    """

    tasks: int
    starts: int
    variations: int
    noise: float = 0.1
    kinds: tuple[str, ...] = CHEAT_KINDS

    def __post_init__(self) -> None:
        for name in ("tasks", "starts", "variations"):
            if getattr(self, name) < 1:
                raise ConfigError(f"Expected {name} >= 1, got {getattr(self, name)}.")
        for kind in self.kinds:
            if kind not in RECIPES:
                raise unknown_name("imperfection", kind, RECIPES)


BUDGETS = {
    "small": AttackBudget(tasks=1, starts=2, variations=2),
    "full": AttackBudget(tasks=3, starts=10, variations=8),
}
"""Name -> budget. `small` takes minutes on two CPU cores, `full` minutes on a GPU with 16."""
