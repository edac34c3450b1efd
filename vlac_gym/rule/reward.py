"""The training rule as data and pure functions: `TrainingRule`, `PRESETS`, `training_rule`, `advance_value`.

Nothing here knows an env or a critic; `vlac_gym.rule.episode` applies the rule step by step.
"""

__all__ = [
    "PRESETS",
    "RewardKind",
    "RuleOptions",
    "TrainingRule",
    "advance_value",
    "potential_reward",
    "training_rule",
]

from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypedDict, get_args

from vlac_gym.checks import check_choice, check_int, check_unit, is_number
from vlac_gym.errors import ConfigError, unknown_name

RewardKind = Literal["terminal", "sparse", "dense", "pbrs", "milestone"]


@dataclass(frozen=True, kw_only=True)
class TrainingRule:
    """When a training episode ends and what each step pays.

    Attributes:
        reward: `terminal` pays 1.0 at done and the value at the step limit; `sparse` pays 1.0 at done and nothing
            at the limit, so that the value of what failed can't be climbed; `dense` pays the change of the
            value at every check; `pbrs` pays 1.0 at done plus `gamma * v' - v` at every step; `milestone`
            stops on the accumulated value and pays it at the end (EVOLVE-VLA).
        done_threshold: A check counts as done if `success_prob >= done_threshold` in float32; [0, 1].
            Default 0.9: `done_threshold` of the VLAC reference (InternRobotics/VLAC, commit 71acb22).
        done_patience: Consecutive done checks that stop the episode; >= 1. Default 1: the reference has none.
        done_interval: Env steps between checks; >= 1; the last step is always checked. Default 1: the
            reference asks at every frame.
        min_steps: The critic can't stop before this env step; >= 0. Default 0: the reference has none.
        min_value: The accumulated value that a stop demands besides, [0, 1], or None. Default None: the
            reference has none.
        value_stride: Env steps between the frames of the value list (frame 0, stride, … and the last); >= 1.
            Default 5: `skip=5` in the VLAC reference's trajectory example.
        gamma: Discount of the `pbrs` potential; (0, 1]. Default 1.0, under which the shaping telescopes.
        milestone_interval: Env steps between milestone frames of `milestone`; a multiple of `done_interval`.
            Default 64: EVOLVE-VLA (arXiv 2512.14666), `D_m`.
        value_threshold: `milestone` stops when the value exceeds this; [0, 1]. Default 0.9: ours, the paper
            gives no number.
        truncate_as_terminal: Report the end at the step limit (and by ``on_sim_terminated="truncate"``) as
            `terminated` instead of `truncated`, for trainers that add gamma * V(s') after a truncation: the value
            that the critic pays there would count twice. `pbrs` then has the potential 0 there, as at done. Default
            False: Gymnasium's meaning of a step limit.

    Raises:
        ConfigError: A value is out of its range.
    """

    reward: RewardKind = "terminal"
    done_threshold: float = 0.9
    done_patience: int = 1
    done_interval: int = 1
    min_steps: int = 0
    min_value: float | None = None
    value_stride: int = 5
    gamma: float = 1.0
    milestone_interval: int = 64
    value_threshold: float = 0.9
    truncate_as_terminal: bool = False

    def __post_init__(self) -> None:
        check_choice("reward kind", self.reward, get_args(RewardKind))
        for name in ("done_patience", "done_interval", "value_stride", "milestone_interval"):
            check_int(name, getattr(self, name), minimum=1)
        check_int("min_steps", self.min_steps, minimum=0)
        for name in ("done_threshold", "value_threshold"):
            check_unit(name, getattr(self, name))
        if self.min_value is not None:
            check_unit("min_value", self.min_value)
        if not isinstance(self.truncate_as_terminal, bool):
            raise ConfigError(
                f"Expected truncate_as_terminal as True or False, got {self.truncate_as_terminal!r}."
            )
        if not is_number(self.gamma) or not 0.0 < self.gamma <= 1.0:
            raise ConfigError(f"Expected gamma in (0, 1], got {self.gamma!r}.")
        if self.reward == "milestone" and self.milestone_interval % self.done_interval:
            raise ConfigError(
                f"Expected milestone_interval as a multiple of done_interval {self.done_interval}, "
                f"got {self.milestone_interval}: a milestone is scored by the check at its step."
            )


class RuleOptions(TypedDict, total=False):
    """Keyword arguments that replace fields of a preset; the meanings are those of `TrainingRule`."""

    reward: RewardKind
    done_threshold: float
    done_patience: int
    done_interval: int
    min_steps: int
    min_value: float | None
    value_stride: int
    gamma: float
    milestone_interval: int
    value_threshold: float
    truncate_as_terminal: bool


def training_rule(preset: str = "vlac", **options: Any) -> TrainingRule:
    """Builds a preset's rule with some of its fields replaced.

    Raises:
        ConfigError: Unknown preset or field, or a value out of its range.
    """
    if preset not in PRESETS:
        raise unknown_name("preset", preset, PRESETS)
    known = {field.name for field in fields(TrainingRule)}
    for name in options:
        if name not in known:
            raise unknown_name("training rule option", name, known)
    return replace(PRESETS[preset], **options)


def advance_value(value: float, progress: float) -> float:
    """Accumulates one pairwise progress into the value: `v + (1 - v) * c`, kept in [0, 1].

    The simple recurrence of the VLAC paper (arXiv 2509.15937) in units of 1 instead of percent. The clip
    only acts on regress from a small value, since v + (1 - v) * c <= 1 for c <= 1.

    Args:
        value: v in [0, 1].
        progress: c in [-1, 1].
    """
    return min(1.0, max(0.0, value + (1.0 - value) * progress))


def potential_reward(before: float, after: float, gamma: float, *, terminated: bool) -> float:
    """Potential-based shaping `gamma * v' - v` (Ng, Harada and Russell, 1999).

    The potential of a terminal state is 0, which is what keeps the optimal policy unchanged; a truncated
    episode has not reached one.
    """
    return (0.0 if terminated else gamma * after) - before


PRESETS: dict[str, TrainingRule] = {
    "vlac": TrainingRule(),
    "sparse": TrainingRule(reward="sparse"),
    "dense": TrainingRule(reward="dense"),
    "pbrs": TrainingRule(reward="pbrs"),
    # 32 critic calls in a 512-step episode (arXiv 2512.14666, table of reward designs): one each 16 steps.
    "evolve": TrainingRule(reward="milestone", done_interval=16),
}
