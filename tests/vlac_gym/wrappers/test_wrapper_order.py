"""In whatever order wrappers lie, the policy sees nothing of the simulator's signals, or the order is refused."""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import wrappers
from gymnasium.wrappers import vector as vector_wrappers
from hypothesis import given, settings
from hypothesis import strategies as st
from vector_envs import LookingCritic

from vlac_gym.errors import ConfigError
from vlac_gym.vector import RolloutVectorEnv
from vlac_gym.vector.infos import unstack_infos
from vlac_gym.wrappers import ActionChunk, EpisodeVideoWrapper, VLACRewardWrapper
from vlac_gym.wrappers.vector import ActionChunk as VectorActionChunk
from vlac_gym.wrappers.vector import VLACRewardWrapper as VectorVLACRewardWrapper

STEPS = 10
AUDIT_KEYS = {"sim_success", "sim_goal_progress", "sim_terminated", "env_reward"}
"""What train mode's info says of the simulator, by names that no trainer takes for reward or metric."""


class PictureEnv(gym.Env):
    """Shows its episode and step; says of success and reward what a seed says, which moves nothing in the picture."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}
    observation_space = gym.spaces.Box(0, 255, (8, 8, 3), np.uint8)
    action_space = gym.spaces.Box(-1.0, 1.0, (7,), np.float32)

    def __init__(self, signals_seed: int | None) -> None:
        self.render_mode = "rgb_array"
        self._signals = None if signals_seed is None else np.random.default_rng(signals_seed)
        self._episode = self._step = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._episode, self._step = self._episode + 1, 0
        return self.render(), self._info(False)

    def step(self, action):
        self._step += 1
        success, reward = False, 0.0
        if self._signals is not None:
            success, reward = bool(self._signals.random() < 0.3), float(self._signals.normal())
        return self.render(), reward, success, self._step >= 6, self._info(success)

    def render(self):
        picture = np.zeros((8, 8, 3), np.uint8)
        picture[0, 0] = (self._episode, 0, self._step)
        return picture

    def _info(self, success):
        return {"task": "stack", "success": success, "goal_progress": float(success), "step": self._step}


AROUND: dict[str, Callable[[gym.Env], gym.Env]] = {
    "ActionChunk": lambda env: ActionChunk(env, 2),
    "Autoreset": wrappers.Autoreset,
    "MaxAndSkipObservation": partial(wrappers.MaxAndSkipObservation, skip=2),
    "RepeatAction": lambda env: wrappers.RepeatAction(env, 2),
    "RecordEpisodeStatistics": wrappers.RecordEpisodeStatistics,
    "OtherStatistics": partial(wrappers.RecordEpisodeStatistics, stats_key="mine"),
    "NormalizeReward": wrappers.NormalizeReward,
    "TransformReward": lambda env: wrappers.TransformReward(env, lambda reward: 3 * reward - 1),
    "ClipReward": lambda env: wrappers.ClipReward(env, -0.5, 0.5),
    "NormalizeObservation": wrappers.NormalizeObservation,
    "TransformObservation": lambda env: wrappers.TransformObservation(
        env, lambda picture: 255 - picture, env.observation_space
    ),
    "DelayObservation": lambda env: wrappers.DelayObservation(env, 1),
    "FrameStackObservation": lambda env: wrappers.FrameStackObservation(env, 2),
    "StickyAction": lambda env: wrappers.StickyAction(env, 0.5),
    "ClipAction": wrappers.ClipAction,
    "TimeLimit": lambda env: wrappers.TimeLimit(env, 4),
    "OrderEnforcing": wrappers.OrderEnforcing,
    "EpisodeVideoWrapper": partial(EpisodeVideoWrapper, frame="render"),
}
"""Gymnasium's wrappers that apply to such an env, and ours."""

REFUSED_INSIDE = {"ActionChunk", "Autoreset", "MaxAndSkipObservation", "RepeatAction"}


def judged(env: gym.Env) -> gym.Env:
    return VLACRewardWrapper(env, LookingCritic(0.2), frame="render", value_stride=2)


def build(inside: tuple[str, ...], outside: tuple[str, ...], signals_seed: int | None) -> gym.Env:
    """Wrappers from the inside out."""
    env: gym.Env = PictureEnv(signals_seed)
    for name in inside:
        env = AROUND[name](env)
    env = judged(env)
    for name in outside:
        env = AROUND[name](env)
    return env


def plain(value: Any) -> Any:
    """Comparable, without what audits the simulator and without wall-clock time."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if k.lstrip("_") not in AUDIT_KEYS and k != "t"}
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def seen(env: gym.Env) -> list:
    """What a policy and its trainer see; episodes are begun anew where they end."""
    env.action_space.seed(0)
    observation, info = env.reset(seed=0)
    visible = [plain([observation]), plain(info)]
    is_over, resets = False, env.has_wrapper_attr("autoreset")
    for _ in range(STEPS):
        if is_over and not resets:
            observation, info = env.reset()
            visible += [plain(observation), plain(info)]
        observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
        is_over = bool(terminated or truncated)
        visible += [plain(observation), np.float64(reward).tobytes(), terminated, truncated, plain(info)]
    return visible


def check(inside: tuple[str, ...], outside: tuple[str, ...], num_seeds: int = 3) -> None:
    bad = REFUSED_INSIDE & set(inside)
    if bad:
        with pytest.raises(ConfigError, match="let the simulator's success end"):
            build(inside, outside, None)
        return
    expected = repr(seen(build(inside, outside, None)))
    for signals_seed in range(num_seeds):
        assert repr(seen(build(inside, outside, signals_seed))) == expected, (inside, outside, signals_seed)


def applies(names: tuple[str, ...]) -> bool:
    """Do Gymnasium and we allow this order of wrappers, whatever lies below them?"""
    env: gym.Env = PictureEnv(None)
    try:
        for name in names:
            env = AROUND[name](env)
        env.reset()
        env.step(env.action_space.sample())
    except (AssertionError, ConfigError, TypeError, ValueError):
        return False
    return True


@pytest.mark.parametrize("name", sorted(AROUND))
def test_each_wrapper_inside_and_outside(name):
    check((name,), ())
    check((), (name,))


def test_every_order_of_two_wrappers():
    pairs = [pair for pair in itertools.permutations(AROUND, 2) if applies(pair)]
    assert len(pairs) > 200
    for first, second in pairs:
        check((first,), (second,), num_seeds=1)
        check((), (first, second), num_seeds=1)
        check((first, second), (), num_seeds=1)


@settings(max_examples=60, deadline=None)
@given(
    names=st.lists(st.sampled_from(sorted(AROUND)), max_size=5, unique=True),
    where=st.integers(0, 5),
)
def test_any_order_of_several_wrappers(names, where):
    order = tuple(name for i, name in enumerate(names) if applies((*names[:i], name)))
    if applies(order):
        check(order[:where], order[where:])


def test_the_message_names_the_right_order():
    inside: Any = wrappers.Autoreset(ActionChunk(PictureEnv(None), 2))
    with pytest.raises(ConfigError, match=r"Autoreset\(ActionChunk\(VLACRewardWrapper\(env, …\)\)\)\.$"):
        judged(inside)
    with pytest.raises(ConfigError, match="Expected one VLACRewardWrapper, got another inside the env"):
        judged(wrappers.OrderEnforcing(judged(PictureEnv(None))))


def test_a_subclass_is_known_and_a_namesake_is_not():
    class MyChunk(ActionChunk):
        pass

    class Autoreset(gym.Wrapper):
        pass

    with pytest.raises(ConfigError, match=r"ActionChunk\(VLACRewardWrapper"):
        judged(MyChunk(PictureEnv(None), 2))
    judged(Autoreset(PictureEnv(None)))


def test_eval_mode_keeps_what_inner_wrappers_say():
    env = build(("RecordEpisodeStatistics",), (), 0)
    env.reset(seed=0, options={"mode": "eval"})
    infos = [env.step(np.zeros(7, np.float32))[4] for _ in range(6)]
    assert "r" in infos[-1]["episode"]


# Many envs at once.

INSIDE = sorted(
    set(AROUND) - {"DelayObservation", "EpisodeVideoWrapper", "FrameStackObservation", "NormalizeObservation"}
)
"""Those that leave the present picture in the observation, where workers' frames are read."""

VECTOR_AROUND: dict[str, Callable[[Any], Any]] = {
    "ActionChunk": lambda env: VectorActionChunk(env, 2),
    "RecordEpisodeStatistics": vector_wrappers.RecordEpisodeStatistics,
    "NormalizeReward": vector_wrappers.NormalizeReward,
    "TransformReward": lambda env: vector_wrappers.TransformReward(env, lambda reward: 3 * reward - 1),
    "NormalizeObservation": vector_wrappers.NormalizeObservation,
    "ClipAction": vector_wrappers.ClipAction,
    "DictInfoToList": vector_wrappers.DictInfoToList,
}


def build_vector(
    inside: str | None, outside: tuple[str, ...], autoreset: str, signals_seed: int | None
) -> Any:
    def env_fn(i: int) -> gym.Env:
        env: gym.Env = PictureEnv(None if signals_seed is None else 10 * signals_seed + i)
        return env if inside is None else AROUND[inside](env)

    env: Any = RolloutVectorEnv([partial(env_fn, i) for i in range(2)], mode="sync", autoreset_mode=autoreset)
    env = VectorVLACRewardWrapper(env, LookingCritic(0.2), value_stride=2)
    for name in outside:
        env = VECTOR_AROUND[name](env)
    return env


def seen_by_many(env: Any) -> list:
    env.action_space.seed(0)
    observations, infos = env.reset(seed=0)
    visible = [observations.tolist(), infos if isinstance(infos, list) else unstack_infos(infos, 2)]
    for _ in range(STEPS):
        observations, rewards, terminations, truncations, infos = env.step(env.action_space.sample())
        visible += [observations.tolist(), rewards.tobytes(), terminations.tolist(), truncations.tolist()]
        visible.append(infos if isinstance(infos, list) else unstack_infos(infos, 2))
    return [[plain(info) for info in part] if isinstance(part, list) else part for part in visible]


AROUND_MANY = [
    (outside, autoreset)
    for outside in [(), *((name,) for name in sorted(VECTOR_AROUND))]
    for autoreset in ["NextStep", "SameStep", "Disabled"]
    if outside != ("NormalizeObservation",) or autoreset == "NextStep"  # Gymnasium refuses the others
]


@pytest.mark.parametrize(("outside", "autoreset"), AROUND_MANY, ids=str)
def test_every_wrapper_inside_and_around_many_envs(outside, autoreset):
    for inside in [None, *INSIDE]:
        if inside in REFUSED_INSIDE:
            with pytest.raises(ConfigError, match="Expected env 0 without"):
                build_vector(inside, outside, autoreset, None)
            continue
        expected = repr(seen_by_many(build_vector(inside, outside, autoreset, None)))
        for signals_seed in range(2):
            found = repr(seen_by_many(build_vector(inside, outside, autoreset, signals_seed)))
            assert found == expected, (inside, outside, signals_seed)


def test_a_wrapper_in_one_of_many_envs_is_found_at_its_first_reset():
    envs = RolloutVectorEnv(
        [partial(PictureEnv, None), lambda: wrappers.Autoreset(PictureEnv(None))], mode="sync"
    )
    env = VectorVLACRewardWrapper(envs, LookingCritic())
    with pytest.raises(
        ConfigError, match=r"Expected env 1 without Autoreset, .*: Autoreset\(VLACRewardWrapper\("
    ):
        env.reset(seed=0)


@pytest.mark.parametrize(
    ("wrap", "order"),
    [
        (lambda env: VectorActionChunk(env, 2), "ActionChunk(VLACRewardWrapper(env, …))."),
        (vector_wrappers.RecordEpisodeStatistics, "RecordEpisodeStatistics(VLACRewardWrapper(env, …))."),
        (
            lambda env: vector_wrappers.ClipAction(VectorActionChunk(env, 2)),
            "ClipAction(ActionChunk(VLACRewardWrapper(env, …))).",
        ),
    ],
)
def test_vector_wrappers_inside_are_refused_with_the_right_order(wrap, order):
    envs = RolloutVectorEnv([partial(PictureEnv, None)], mode="sync")
    with pytest.raises(ConfigError) as refused:
        VectorVLACRewardWrapper(wrap(envs), LookingCritic())
    assert str(refused.value).endswith(order)
