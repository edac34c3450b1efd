"""Every wrapper and vector env of ours keeps Gymnasium's contract, as its checker and the passive one see it."""

from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env, data_equivalence
from gymnasium.vector import AutoresetMode, VectorEnv
from vector_envs import LookingCritic, ShadedEnv

import vlac_gym
from vlac_gym.curriculum import CurriculumConfig, CurriculumManager
from vlac_gym.vector import RolloutVectorEnv
from vlac_gym.vector.infos import unstack_infos
from vlac_gym.wrappers import ActionChunk, EpisodeVideoWrapper, VLACRewardWrapper
from vlac_gym.wrappers import vector as wrappers


class EqualEpisodes(ShadedEnv):
    """Its pictures don't say which episode it is, so that equal episodes look the same."""

    def reset(self, *, seed=None, options=None):
        self.num_resets = 0
        return super().reset(seed=seed, options=options)


SINGLE = {
    "train": lambda env: VLACRewardWrapper(env, LookingCritic(done_share=0.0)),
    "oracle": lambda env: VLACRewardWrapper(env, "oracle"),
    "dense": lambda env: VLACRewardWrapper(env, "oracle", preset="dense"),
    "eval": lambda env: VLACRewardWrapper(env, "oracle", mode="eval"),
    "chunk": lambda env: ActionChunk(env, 3),
    "chunk of train": lambda env: ActionChunk(VLACRewardWrapper(env, "oracle"), 3),
    "video of train": lambda env: EpisodeVideoWrapper(VLACRewardWrapper(env, "oracle")),
}


@pytest.fixture(scope="module", autouse=True)
def scripted_id():
    gym.register("vlac_gym_test/Contract-v0", entry_point=EqualEpisodes)
    yield
    del gym.registry["vlac_gym_test/Contract-v0"]


@pytest.mark.filterwarnings("ignore:.*is different from the unwrapped version:UserWarning")
@pytest.mark.parametrize("name", SINGLE)
def test_single_wrappers_pass_gymnasiums_checker(name):
    env = gym.make("vlac_gym_test/Contract-v0", render_mode="rgb_array", disable_env_checker=True)
    check_env(SINGLE[name](env))


@pytest.mark.filterwarnings("ignore:.*is different from the unwrapped version:UserWarning")
@pytest.mark.parametrize("name", ["train", "oracle", "video of train"])
def test_wrapped_libero_passes_gymnasiums_checker(libero_env, name):
    env = gym.make(
        vlac_gym.LIBERO_ENV_ID, image_size=32, cameras=("agentview",), settle_steps=1, render_mode="rgb_array"
    )
    wrapped = SINGLE[name](env)
    check_env(wrapped)
    wrapped.close()


def curriculum(env: Any) -> VectorEnv:
    return wrappers.CurriculumWrapper(env, CurriculumManager([0], 1, CurriculumConfig(source="critic")))


def judged(env: Any, **options: Any) -> Any:
    return wrappers.VLACRewardWrapper(env, LookingCritic(done_share=0.2), **options)


MANY: dict[str, Callable[[Any], VectorEnv]] = {
    "bare": lambda env: env,
    "train": judged,
    "dense": partial(judged, preset="dense"),
    "eval": partial(judged, mode="eval"),
    "chunk": lambda env: wrappers.ActionChunk(env, 2),
    "chunk of train": lambda env: wrappers.ActionChunk(judged(env), 2),
    "curriculum": lambda env: curriculum(judged(env)),
}


@pytest.mark.parametrize("autoreset", ["NextStep", "SameStep", "Disabled"])
@pytest.mark.parametrize("name", MANY)
def test_vector_envs_are_deterministic_and_of_their_spaces(name, autoreset):
    fns = [partial(EqualEpisodes, shade=i, max_episode_steps=3 + i, success_steps=[2 + i]) for i in range(2)]
    env = MANY[name](RolloutVectorEnv(fns, mode="sync", autoreset_mode=autoreset))
    assert env.metadata["autoreset_mode"] is AutoresetMode(autoreset)
    env.action_space.seed(1)
    actions = [env.action_space.sample() for _ in range(6)]
    first, second = play(env, actions), play(env, actions)
    assert len(first) == len(second) == 7
    for step, (one, other) in enumerate(zip(first, second, strict=True)):
        assert data_equivalence(one, other, exact=True), f"step {step} differs between equal episodes"
    env.close()


def play(env: VectorEnv, actions: list) -> list:
    """What a seeded reset and these actions give, with one info per env; checks shapes and dtypes on the way."""
    observations, infos = env.reset(seed=7)
    assert observations in env.observation_space
    history = [(observations, per_env(infos))]
    for action in actions:
        observations, rewards, terminations, truncations, infos = env.step(action)
        assert observations in env.observation_space
        assert (rewards.dtype, rewards.shape) == (np.float64, (env.num_envs,))
        for flags in (terminations, truncations):
            assert (flags.dtype, flags.shape) == (np.bool_, (env.num_envs,))
        history.append((observations, rewards, terminations, truncations, per_env(infos)))
    return history


def per_env(infos: dict[str, Any]) -> list[dict[str, Any]]:
    """Without the curriculum's assignments, of which no two are the same."""
    singles = unstack_infos(infos, 2)
    for info in [*singles, *(single.get("final_info", {}) for single in singles)]:
        info.pop("assignment", None)
    return singles
