"""How long the search may last: `AttackBudget`, `SearchBudget`, `ImitationBudget`, `BUDGETS`, `CHEAT_KINDS`."""

__all__ = ["BUDGETS", "CHEAT_KINDS", "AttackBudget", "ImitationBudget", "SearchBudget"]

from dataclasses import dataclass

from vlac_gym.checks import check_unit
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
class SearchBudget:
    """Episodes and steps of filtered imitation.

    Raises:
        ConfigError: A value is out of its range.
    """

    rounds: int
    """Of playing and imitating."""
    episodes_per_round: int
    """Episodes of each round."""
    steps_per_round: int
    """Optimiser steps after each round, on all episodes so far that the critic ended as done."""
    batch_size: int = 256
    """Decisions of an optimiser step."""
    learning_rate: float = 2e-4
    """Of the imitation."""
    noise: float = 0.08
    """Standard deviation of the noise that the policy plays with, in action units."""
    step_limit: int = 160
    """Env steps of an episode."""

    def __post_init__(self) -> None:
        for name in ("rounds", "episodes_per_round", "steps_per_round", "batch_size", "step_limit"):
            if getattr(self, name) < 1:
                raise ConfigError(f"Expected {name} >= 1, got {getattr(self, name)}.")
        if not 0 < self.learning_rate < 1:
            raise ConfigError(f"Expected learning_rate above 0 and below 1, got {self.learning_rate}.")
        check_unit("noise", self.noise)


@dataclass(frozen=True, kw_only=True)
class ImitationBudget(SearchBudget):
    """A search that begins with a clone.

    Raises:
        ConfigError: A value is out of its range.
    """

    demos_per_task: int
    """Demonstrations that the policy is cloned from; few, so that it fails often."""
    clone_steps: int
    """Optimiser steps of the cloning."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("demos_per_task", "clone_steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"Expected {name} >= 1, got {getattr(self, name)}.")


@dataclass(frozen=True, kw_only=True)
class AttackBudget:
    """Episodes of a search. Cards are comparable under the same budget.

    Attributes:
        tasks: Tasks that are attacked, at most.
        starts: Initial states of each task.
        variations: Episodes of each scripted cheat at each start, that differ by their seed.
        noise: Of the expert that cheats, in action units.
        kinds: Which cheats, of `vlac_gym.data.plans.RECIPES`.
        imitation: Of filtered imitation; None leaves it out.

    Raises:
        ConfigError: A value is out of its range.
    """

    tasks: int
    starts: int
    variations: int
    noise: float = 0.1
    kinds: tuple[str, ...] = CHEAT_KINDS
    imitation: ImitationBudget | None = None

    def __post_init__(self) -> None:
        for name in ("tasks", "starts", "variations"):
            if getattr(self, name) < 1:
                raise ConfigError(f"Expected {name} >= 1, got {getattr(self, name)}.")
        for kind in self.kinds:
            if kind not in RECIPES:
                raise unknown_name("imperfection", kind, RECIPES)


BUDGETS = {
    "small": AttackBudget(
        tasks=1,
        starts=2,
        variations=2,
        imitation=ImitationBudget(
            demos_per_task=2,
            clone_steps=200,
            rounds=3,
            episodes_per_round=8,
            steps_per_round=40,
            batch_size=64,
        ),
    ),
    "full": AttackBudget(
        tasks=3,
        starts=10,
        variations=8,
        imitation=ImitationBudget(
            demos_per_task=2, clone_steps=1000, rounds=24, episodes_per_round=64, steps_per_round=200
        ),
    ),
}
"""Name -> budget. `small` takes minutes on two CPU cores, `full` minutes on a GPU with 16."""
