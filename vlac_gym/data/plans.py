"""Which episodes to collect: `RECIPES`, `Recipe`, `EpisodePlan`, `parse_mix`, `plan_episodes`."""

__all__ = ["DEFAULT_MIX", "RECIPES", "EpisodePlan", "Recipe", "parse_mix", "plan_episodes"]

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vlac_gym.data.episodes import EpisodeMeta, episode_path
from vlac_gym.errors import ConfigError, unknown_name


@dataclass(frozen=True)
class Recipe:
    """One way to make an episode.

    Attributes:
        options: Options appended to the policy's spec, e.g. `"fail=drop"`; empty for none.
        sequel: What takes over from the policy, see `vlac_gym.data.sequels`.
        sequel_at: When it does: a while after `"success"`, or at the first step of a stage of the policy;
            `hold` at `"release"` keeps the object where it should go and never lets it go.
        policy: Policy to use in the place of the one that was asked for; empty to use that one.
    """

    options: str = ""
    sequel: str = "hold"
    sequel_at: str = "success"
    policy: str = ""

    def policy_spec(self, policy: str) -> str:
        """The spec of the policy that drives the arm."""
        spec = self.policy or policy
        if not self.options:
            return spec
        return f"{spec}{',' if ':' in spec else ':'}{self.options}"


RECIPES: dict[str, Recipe] = {
    "none": Recipe(),
    "noise": Recipe("noise=0.15"),
    "drop": Recipe("fail=drop"),
    "beside": Recipe("fail=beside"),
    "wrong_object": Recipe("fail=wrong_object"),
    "stop": Recipe("fail=stop"),
    "held": Recipe(sequel_at="release"),
    "near_miss": Recipe(sequel="put_beside", sequel_at="lower"),
    "taken_back": Recipe(sequel="take_back"),
    "pushed_away": Recipe(sequel="push_away"),
    "hover": Recipe("fail=hover"),
    "push": Recipe("fail=push"),
    "block_view": Recipe("fail=block_view"),
    "empty_hand": Recipe("fail=empty_hand"),
    "random": Recipe(policy="random"),
    "idle": Recipe(policy="zero"),
}
"""Imperfection -> how to make it. `none` is an honest attempt, which may fail on its own."""

DEFAULT_MIX = (
    "none=5,noise=2,drop=1,beside=1,near_miss=2,wrong_object=1,stop=1,held=1,taken_back=1.5,pushed_away=1,"
    "idle=0.25,random=0.25"
)
"""About as many episodes that succeed as that do not; the cheats `hover` to `empty_hand` only where asked for."""


@dataclass(frozen=True)
class EpisodePlan:
    """One episode to collect; the same plan makes the same episode.

    Attributes:
        task_suite: Suite name.
        task_id: Task in the suite.
        init_state_id: Official initial state.
        policy: Policy spec, the recipe's options included.
        imperfection: Name of the recipe.
        sequel: See `Recipe`.
        sequel_at: See `Recipe`.
        seed: Seed of the policy and the aftermath.
    """

    task_suite: str
    task_id: int
    init_state_id: int
    policy: str
    imperfection: str = "none"
    sequel: str = "hold"
    sequel_at: str = "success"
    seed: int = 0

    def meta(self, task: str, frame_stride_steps: int, encoding: str) -> EpisodeMeta:
        """What the recorded episode says of itself."""
        return EpisodeMeta(
            task_suite=self.task_suite,
            task_id=self.task_id,
            task=task,
            init_state_id=self.init_state_id,
            policy=self.policy,
            imperfection=self.imperfection,
            seed=self.seed,
            frame_stride_steps=frame_stride_steps,
            encoding=encoding,
            details={"sequel": self.sequel, "sequel_at": self.sequel_at},
        )

    @property
    def episode_id(self) -> str:
        """The id that the recorded episode will have."""
        return self.meta("", 1, "jpeg").episode_id

    def is_recorded(self, root: Path) -> bool:
        """Whether the dataset folder `root` holds this episode."""
        return episode_path(root, self.meta("", 1, "jpeg")).exists()


def parse_mix(text: str) -> dict[str, float]:
    """Parses `none=4,drop=1`: recipe -> weight above 0; a recipe without a weight weighs 1.

    Raises:
        ConfigError: Unknown recipe, repeated recipe, or a weight that is no number above 0.
    """
    mix: dict[str, float] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, _, weight = (piece.strip() for piece in item.partition("="))
        if name not in RECIPES:
            raise unknown_name("imperfection", name, RECIPES)
        if name in mix:
            raise ConfigError(f"Imperfection {name!r} is given twice in {text!r}.")
        try:
            mix[name] = float(weight) if weight else 1.0
        except ValueError as e:
            raise ConfigError(f"Expected {name}=WEIGHT with a number, got {item!r}.") from e
        if not 0 < mix[name] < float("inf"):
            raise ConfigError(f"Expected the weight of {name!r} above 0, got {weight!r}.")
    if not mix:
        raise ConfigError(f"Expected imperfections such as 'none=4,drop=1', got {text!r}.")
    return mix


def plan_episodes(
    tasks: Sequence[tuple[str, int, Sequence[int]]],
    episodes_per_task: int,
    mix: Mapping[str, float],
    *,
    policy: str = "expert",
    seed: int = 0,
) -> list[EpisodePlan]:
    """Spreads recipes and initial states over the episodes of each task.

    Each recipe gets its share of all tasks' episodes: what a task's episodes are too few for is made up for by the
    tasks after it, so that a rare recipe is not left out of every task. It goes through the initial states in an order
    of its own, so that no recipe is tied to particular starts. Asking for more episodes or other tasks later keeps the
    episodes planned before only if their shares allow it; use another seed to add.

    Args:
        tasks: (suite, task id, initial states to use) of each task.
        episodes_per_task: How many of each task.
        mix: Recipe -> weight, see `parse_mix`.
        policy: Spec of the policy that recipes build upon.
        seed: Seed of the orders and of every episode's own seed.

    Raises:
        ConfigError: No task, no initial state, or fewer than one episode.
    """
    if episodes_per_task < 1:
        raise ConfigError(f"Expected at least 1 episode per task, got {episodes_per_task}.")
    if not tasks or any(not init_states for _, _, init_states in tasks):
        raise ConfigError("Expected at least one task, and at least one initial state for each.")
    plans = []
    shares = _shares(mix, episodes_per_task, len(tasks))
    for (task_suite, task_id, init_states), counts in zip(tasks, shares, strict=True):
        for name, count in counts.items():
            if not count:
                continue
            rng = np.random.default_rng((seed, zlib.crc32(f"{task_suite}/{task_id}/{name}".encode())))
            order = np.concatenate(
                [rng.permutation(init_states) for _ in range(-(-count // len(init_states)))]
            )
            recipe = RECIPES[name]
            plans += [
                EpisodePlan(
                    task_suite=task_suite,
                    task_id=task_id,
                    init_state_id=int(order[i]),
                    policy=recipe.policy_spec(policy),
                    imperfection=name,
                    sequel=recipe.sequel,
                    sequel_at=recipe.sequel_at,
                    seed=seed * 1000 + i // len(init_states),
                )
                for i in range(count)
            ]
    return plans


def _shares(mix: Mapping[str, float], total: int, num_tasks: int) -> Iterator[dict[str, int]]:
    """How many episodes of each recipe, for one task after the other: always the one that is owed most."""
    weights = np.array(list(mix.values()))
    owed = np.zeros(len(weights))
    for _ in range(num_tasks):
        owed += weights / weights.sum() * total
        counts = np.zeros(len(weights), int)
        for _ in range(total):
            index = int(np.argmax(owed))
            counts[index] += 1
            owed[index] -= 1
        yield dict(zip(mix, counts.tolist()))
