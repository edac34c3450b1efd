"""The wrapped envs of an adapter, from the trainer's block: `make_env`, `make_vector_env`, and for its critics
`make_critic_of`, `failure_policy_of`, `close_critics`.

The stack is the env, `RolloutVectorEnv`, the vector `VLACRewardWrapper`: one question to the critic per step, whatever
the number of envs. No reward is computed here.
"""

__all__ = ["close_critics", "failure_policy_of", "make_critic_of", "make_env", "make_vector_env"]

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import gymnasium as gym
from gymnasium.vector import AutoresetMode

import vlac_gym  # noqa: F401 (registers the LIBERO id)
from verl_env_adapter.common.ray_executor import ray_executor
from verl_env_adapter.common.settings import AdapterSettings, is_url
from vlac_gym.critic.base import Critic
from vlac_gym.critic.failure_policy import CriticFailurePolicy
from vlac_gym.critic.registry import make_critic
from vlac_gym.errors import ConfigError
from vlac_gym.types import Mode
from vlac_gym.vector.executor import EnvFactory, ExecutorFactory
from vlac_gym.vector.rollout_env import RolloutVectorEnv
from vlac_gym.vector.warp_executor import warp_envs
from vlac_gym.wrappers.vector import VLACRewardWrapper


def make_vector_env(
    settings: AdapterSettings,
    num_envs: int,
    *,
    critic: Critic | str,
    mode: Mode,
    on_critic_error: CriticFailurePolicy,
    processes: Literal["async", "sync"] = "async",
    envs_per_worker: int = 1,
) -> VLACRewardWrapper:
    """Builds the stack; simulators, and a critic given as a spec, start on first use, worlds on a GPU here.

    An env whose episode is over idles until its own reset.

    Args:
        settings: The trainer's block.
        num_envs: N.
        critic: See `make_critic_of`.
        mode: The wrapper's, until a reset says another.
        on_critic_error: See `failure_policy_of`.
        processes: `async` gives envs processes of their own, or actors where `placement.env_resource` is set; `sync`
            keeps them in this process. Worlds on a GPU (``env.backend: warp``) are always in this process.
        envs_per_worker: Envs in one process.

    Raises:
        ConfigError: The settings do not fit the env.
        DependencyNotInstalled: Worlds are asked for, and mujoco-warp is missing.
    """
    placement = settings.placement
    fns, runs_them = _envs_of(settings, num_envs, processes)
    envs = RolloutVectorEnv(
        fns,
        mode=runs_them,
        autoreset_mode=AutoresetMode.DISABLED,
        envs_per_worker=envs_per_worker,
        start_timeout_s=placement.start_timeout_s,
        step_timeout_s=placement.step_timeout_s,
    )
    try:
        return VLACRewardWrapper(
            envs,
            critic,
            mode=mode,
            preset=settings.rule.preset,
            calibration=settings.rule.calibration,
            frame=settings.env.frame,
            on_sim_terminated=settings.env.on_sim_terminated,
            on_critic_error=on_critic_error,
            on_critic_mismatch=settings.critic.on_mismatch,
            ask_window_s=settings.critic.ask_window_s,
            **settings.rule_options,
        )
    except BaseException:
        envs.close()
        raise


def _envs_of(
    settings: AdapterSettings, num_envs: int, processes: Literal["async", "sync"]
) -> tuple[Sequence[EnvFactory], Literal["async", "sync"] | ExecutorFactory]:
    """The envs' factories, and what runs them."""
    env, elsewhere = settings.env, settings.placement.env_resource
    if env.scenes is not None:
        return warp_envs(
            env.scenes,
            [(env.suite, task_id) for task_id in env.tasks_of_worlds(num_envs)],
            cameras=env.cameras,
            image_size=env.image_size,
            max_episode_steps=env.max_episode_steps,
            **env.kwargs,
        )
    if elsewhere is not None and processes == "async":
        return [partial(make_env, settings)] * num_envs, partial(ray_executor, resource=elsewhere)
    return [partial(make_env, settings)] * num_envs, processes


def make_critic_of(settings: AdapterSettings, host_deadline_s: float | None = None) -> Critic | str:
    """The client of the settings' critic server; for any other critic its spec, which is built on first use.

    Args:
        settings: The trainer's block.
        host_deadline_s: How long the trainer waits for one chunk; bounds the critic's deadline.

    Raises:
        ConfigError: `critic.deadline_s` leaves the trainer no time.
    """
    return _client_or_spec(settings.critic.spec, settings.critic_options(host_deadline_s))


def failure_policy_of(settings: AdapterSettings, host_deadline_s: float | None = None) -> CriticFailurePolicy:
    """The settings' `critic.on_error`, with clients in the place of its fallbacks' URLs; see `make_critic_of`.

    Raises:
        ConfigError: `critic.deadline_s` leaves the trainer no time.
    """
    options = settings.critic_options(host_deadline_s)
    fallbacks = [_client_or_spec(spec, options) for spec in settings.critic.specs[1:]]
    return replace(settings.critic.on_error, fallbacks=fallbacks)


def close_critics(critic: Critic | str, policy: CriticFailurePolicy) -> None:
    """Closes the clients that `make_critic_of` and `failure_policy_of` made; safe to call twice."""
    for made in (critic, *policy.fallbacks):
        if not isinstance(made, str):
            made.close()


def _client_or_spec(spec: str, options: Mapping[str, Any]) -> Critic | str:
    return make_critic(spec, **options) if is_url(spec) else spec


def make_env(settings: AdapterSettings) -> gym.Env[Any, Any]:
    """The bare env, without the wrapper; the simulator starts on first use.

    Raises:
        ConfigError: There is no such env.
    """
    env = settings.env
    kwargs: dict[str, Any] = {"disable_env_checker": True, **env.kwargs}
    if env.is_libero:
        kwargs |= {"task_suite": env.suite, "cameras": env.cameras, "image_size": env.image_size}
        kwargs["task_id"] = env.tasks[0] if env.tasks else 0
        if env.max_episode_steps is not None:
            kwargs["step_limit"] = env.max_episode_steps
    elif env.max_episode_steps is not None:
        kwargs["max_episode_steps"] = env.max_episode_steps
    try:
        return gym.make(env.id, **kwargs)
    except gym.error.Error as e:
        raise ConfigError(f"Can't make env.id {env.id!r}: {e}") from e
