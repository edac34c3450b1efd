"""The critic as the referee of a vector env's steps: `VectorCriticReferee`."""

__all__ = ["VectorCriticReferee"]

import weakref
from collections.abc import Mapping, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any, Protocol, cast

import gymnasium as gym
from gymnasium.vector import VectorEnv

from vlac_gym.rule.episode import Verdict
from vlac_gym.rule.round import OpenStep
from vlac_gym.stepping.frame_source import FrameReader
from vlac_gym.stepping.inner_wrappers import check_inner_wrappers
from vlac_gym.types import Frame
from vlac_gym.vector.commands import ResetReply, StepCommand, StepReply
from vlac_gym.wrappers.critic_referee import CriticReferee
from vlac_gym.wrappers.rule_setup import RewardConfig


class ObservedEnvs(Protocol):
    """Envs whose observations can be told apart."""

    def observation(self, index: int) -> Any:
        """Env `index`'s latest observation."""
        ...


class VectorCriticReferee(CriticReferee):
    """Settles the steps of N envs by the rule; see `Referee`.

    Args:
        config: The wrapper's arguments.
        env: The vector env.
        envs: Tells env i's observation now; must outlive this.
        first_env_index: What a privileged critic knows env 0 as.
        shares_cpu: The envs render in this process or in others of its host.
        ends_with_env: See `TrainingEpisode`.

    Raises:
        ConfigError: One env's observation holds no such frame, or there is no such calibration.
    """

    believes_simulator = False

    def __init__(
        self,
        config: RewardConfig,
        env: VectorEnv[Any, Any, Any],
        envs: ObservedEnvs,
        *,
        first_env_index: int,
        shares_cpu: bool,
        ends_with_env: bool,
    ) -> None:
        # The envs' render() is out of reach, so that the frame must be part of the observation.
        one_env = SimpleNamespace(observation_space=env.single_observation_space, render_mode=None)
        one = cast("gym.Env[Any, Any]", one_env)
        reader = FrameReader(one, config.frame)
        self._stops = {
            "stops_at_terminated": config.on_sim_terminated == "truncate",
            "stops_at_truncated": config.max_episode_steps is None,
        }
        # The key that alone needs refreshing for the critic; None if the whole observation does.
        self._key = f"{reader.camera}_image" if reader.camera is not None else None
        super().__init__(
            config,
            partial(_frame, reader, one, weakref.proxy(envs)),  # the envs' loop holds this
            num_envs=env.num_envs,
            camera=reader.camera,
            renderer=env.metadata.get("renderer"),
            first_env_index=first_env_index,
            shares_cpu=shares_cpu,
            ends_with_env=ends_with_env,
        )

    def begin(self, index: int, reply: ResetReply, episode_id: int | None = None) -> dict[str, Any]:
        """Begins the episode of an env that was reset; returns its info; see `begin_episode`.

        Raises:
            ConfigError: The env's wrappers would let the simulator's success end the episode, or the critic does not
                know the episode.
        """
        check_inner_wrappers(reply.episode_enders, f"env {index}")
        return self.begin_episode(index, reply.info, episode_id)

    def command(self, index: int, actions: Sequence[Any]) -> StepCommand:
        """The actions up to the next frame that the critic needs."""
        count = min(len(actions), self.episode(index).steps_to_frame)
        # The caller looks at the whole observation, but only at the end.
        return StepCommand(actions[:count], None if count == len(actions) else self._key, **self._stops)

    def take(self, index: int, reply: StepReply) -> tuple[Sequence[Verdict], OpenStep | None]:
        """The verdicts on the executed steps; the last is open if the critic must be asked."""
        episode = self.episode(index)
        verdicts = [
            episode.step(False, False, success, look=_not_looked_at).verdict
            for success in reply.successes[:-1]
        ]
        last = self.open_step(index, reply.terminated, reply.truncated, reply.info)
        return (verdicts, last) if last.question is not None else ([*verdicts, last.verdict], None)

    def info(self, index: int, reply: StepReply) -> dict[str, Any]:
        """The info of an env's last executed step."""
        return self.step_info(index, reply.info, float(reply.rewards[-1]), reply.terminated)


def _frame(
    reader: FrameReader, one_env: gym.Env[Any, Any], envs: ObservedEnvs, index: int, info: Mapping[str, Any]
) -> Frame:
    return reader.take(one_env, envs.observation(index), info)


def _not_looked_at() -> Frame:
    raise AssertionError("an env went past a step whose frame is needed")
