"""Envs and a critic for tests of vector envs; importable by worker processes."""

import os
import threading
import time
import zlib
from collections import Counter
from copy import deepcopy
from typing import Any

import gymnasium as gym
import numpy as np

from vlac_gym.critic.base import BaseCritic
from vlac_gym.envs.scripted import ScriptedEnv
from vlac_gym.errors import SimulatorError
from vlac_gym.types import CriticInfo
from vlac_gym.vector.infos import unstack_infos


class ShadedEnv(ScriptedEnv):
    """A scripted env whose frames show which env it is, and whose resets draw a number and take options.

    It can step without rendering; `rendered` lists the steps whose frame was looked at, and `observed` those whose
    whole observation was.
    """

    def __init__(self, shade: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.shade = shade
        self.rendered: list[int] = []
        self.observed: list[int] = []
        self.start: dict[str, Any] = {}

    def reset(self, *, seed=None, options=None):
        _, info = super().reset(seed=seed)
        self.start = {"draw": int(self.np_random.integers(10**6)), "options": dict(options or {})}
        return self.observe(), info | deepcopy(self.start)

    def step(self, action):
        reward, terminated, truncated = self.step_unrendered(action)
        return self.observe(), reward, terminated, truncated, self.current_info()

    def step_unrendered(self, action):
        self._step += 1
        self.num_steps += 1
        succeeds = self._step in self._success_steps
        is_last = self._max_episode_steps is not None and self._step >= self._max_episode_steps
        return float(succeeds), succeeds, is_last

    def current_info(self):
        return self._info(self._step) | deepcopy(self.start)

    def observe(self):
        self.rendered.append(self._step)
        self.observed.append(self._step)
        return self._observation(self._step)

    def environment_variable(self, name):
        return os.environ.get(name)

    def render_camera(self, camera):
        assert camera == "agentview"
        self.rendered.append(self._step)
        return self._frame(self._step)

    def _frame(self, step):
        frame = super()._frame(step)
        frame[0, 1] = self.shade
        return frame


class FaultyEnv(ShadedEnv):
    """Does something bad at one step, or at every reset."""

    def __init__(self, fault: str, at_step: int = 2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.fault, self.at_step = fault, at_step

    def reset(self, *, seed=None, options=None):
        if self.fault == "die at reset":
            os._exit(3)
        return super().reset(seed=seed, options=options)

    def step_unrendered(self, action):
        if self._step + 1 == self.at_step:
            if self.fault == "die":
                os._exit(7)
            if self.fault == "hang":
                time.sleep(3600)
            if self.fault == "physics":
                self._step = None
                raise SimulatorError("the physics became unstable")
            raise KeyError("a bug")
        return super().step_unrendered(action)


class SlowEnv(ShadedEnv):
    """Takes some seconds per step."""

    def __init__(self, step_s: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.step_s = step_s

    def step_unrendered(self, action):
        time.sleep(self.step_s)
        return super().step_unrendered(action)


class LookingCritic:
    """Answers by what a frame shows, differently for every env, episode and step; notes what it was asked."""

    def __init__(self, done_share: float = 0.1) -> None:
        self.done_share = done_share
        self.calls: list[tuple[str, int]] = []
        self.seen: list[list[tuple[int, int, int]]] = []

    def success_prob(self, frames, tasks):
        self._note("success_prob", frames)
        draws = [_draw(frame) for frame in frames]
        return np.array([0.95 if draw < self.done_share else 0.9 * draw for draw in draws], np.float32)

    def progress(self, before, after, tasks, references=None):
        self._note("progress", after)
        assert all(_episode(b) == _episode(a) for b, a in zip(before, after)), "a pair spans a reset"
        return np.array([_draw(b) - _draw(a) for b, a in zip(before, after)], np.float32)

    def value(self, frames, task, references=None):
        raise AssertionError("values() takes all episodes at once")

    def values(self, episodes, tasks, references=None):
        self._note("values", [frames[-1] for frames in episodes])
        for frames in episodes:
            assert len({_episode(frame) for frame in frames}) == 1, "a value list spans a reset"
        return [np.array([_draw(frame) for frame in frames], np.float32) for frames in episodes]

    def describe(self):
        return CriticInfo(name="looking")

    def close(self):
        pass

    def _note(self, method: str, frames: Any) -> None:
        self.calls.append((method, len(frames)))
        self.seen.append([(*_episode(frame), _step(frame)) for frame in frames])


class SlowCritic(LookingCritic, BaseCritic):
    """Takes its time, and notices how many calls are under way at once: `most` in all, `most_of` each method.

    Args:
        delays_s: Of its calls, in turn.
        done_share: As of `LookingCritic`.
        takes_concurrent_calls: What it declares.
    """

    def __init__(
        self, delays_s: list[float], done_share: float = 0.15, *, takes_concurrent_calls: bool = False
    ) -> None:
        super().__init__(done_share)
        self.delays_s = delays_s
        self.takes_concurrent_calls = takes_concurrent_calls
        self.most, self.most_of = 0, Counter[str]()
        self._users = Counter[str]()
        self._lock = threading.Lock()

    def _note(self, method: str, frames: Any) -> None:
        with self._lock:
            self._users[method] += 1
            self.most = max(self.most, self._users.total())
            self.most_of[method] = max(self.most_of[method], self._users[method])
        time.sleep(self.delays_s[len(self.calls) % len(self.delays_s)])
        with self._lock:
            self._users[method] -= 1
            super()._note(method, frames)


def _episode(frame: np.ndarray) -> tuple[int, int]:
    """(shade, number of the episode)."""
    return int(frame[0, 1, 0]), int(frame[0, 0, 0])


def _step(frame: np.ndarray) -> int:
    return 256 * int(frame[0, 0, 1]) + int(frame[0, 0, 2])


def _draw(frame: np.ndarray) -> float:
    return zlib.crc32(frame[0, :2].tobytes()) % 1000 / 1000


def plain(info: dict[str, Any]) -> dict[str, Any]:
    """An info without what is None and the keys that only vector infos have."""
    dropped = ("lost", "chunk")
    return {
        key: plain(value) if isinstance(value, dict) and key != "options" else value
        for key, value in info.items()
        if value is not None and key not in dropped
    }


def per_env(infos: dict[str, Any], num_envs: int) -> list[dict[str, Any]]:
    """Vector infos as one `plain` info per env; options were made a dict of arrays on the way."""
    return [plain(info) for info in unstack_infos(infos, num_envs)]


def digest(observation: Any) -> dict[str, bytes]:
    return {key: np.asarray(value).tobytes() for key, value in observation.items()}


class SingleEnvs:
    """N single envs stepped in a loop with Gymnasium's autoreset: what a vector env must equal."""

    def __init__(self, envs: list[gym.Env], autoreset: str) -> None:
        self.envs = envs
        self.autoreset = autoreset
        self.is_over = [False] * len(envs)

    def reset(self, seed: int) -> list[tuple]:
        self.is_over = [False] * len(self.envs)
        results = [env.reset(seed=seed + i) for i, env in enumerate(self.envs)]
        return [(digest(observation), plain(info)) for observation, info in results]

    def step(self, actions: Any) -> list[tuple]:
        """(observation, reward, terminated, truncated, info, final observation, final info) of each env."""
        return [self._step(i, env, actions[i]) for i, env in enumerate(self.envs)]

    def _step(self, i: int, env: gym.Env, action: Any) -> tuple:
        if self.is_over[i] and self.autoreset == "NextStep":
            observation, info = env.reset()
            self.is_over[i] = False
            return digest(observation), 0.0, False, False, plain(info), None, None
        if self.is_over[i]:
            return ("idle",)
        observation, reward, terminated, truncated, info = env.step(action)
        self.is_over[i] = terminated or truncated
        final = None, None
        if self.is_over[i] and self.autoreset == "SameStep":
            final = digest(observation), plain(info)
            observation, info = env.reset()
            self.is_over[i] = False
        return digest(observation), reward, terminated, truncated, plain(info), *final


def as_singles(result: tuple, is_idle: list[bool]) -> list[tuple]:
    """A vector env's step in the form of `SingleEnvs.step`."""
    observations, rewards, terminations, truncations, infos = result
    singles = []
    for i, info in enumerate(per_env(infos, len(rewards))):
        if is_idle[i]:
            singles.append(("idle",))
            continue
        final_obs, final_info = info.pop("final_obs", None), info.pop("final_info", None)
        singles.append(
            (
                digest({key: value[i] for key, value in observations.items()}),
                float(rewards[i]),
                bool(terminations[i]),
                bool(truncations[i]),
                info,
                digest(final_obs) if final_obs is not None else None,
                final_info,
            )
        )
    return singles
