"""One evaluation from its settings to its page: `EvalSettings`, `evaluate`."""

__all__ = ["EvalSettings", "check_settings", "evaluate", "planned_episodes"]

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import gymnasium as gym
from gymnasium.vector import AutoresetMode

from vlac_gym.critic.base import Critic
from vlac_gym.envs.libero.env import LiberoEnv
from vlac_gym.envs.libero.tasks import list_tasks
from vlac_gym.evaluation.driving import Driver, InEnvDriver, PolicyDriver, SelfDrivenEnv
from vlac_gym.evaluation.folder import EpisodeRecord, EvalFolder
from vlac_gym.evaluation.page import write_results
from vlac_gym.evaluation.playing import LOOK_INTERVAL_STEPS, Footage, play_episodes
from vlac_gym.evaluation.post_hoc import PostHocCritic, check_post_hoc
from vlac_gym.evaluation.starts import PlannedEpisode, plan_episodes
from vlac_gym.evaluation.videos import VideoShelf
from vlac_gym.policies import Policy, make_policy
from vlac_gym.rollout.playing import PlayedEpisode
from vlac_gym.vector.config import VectorOptions
from vlac_gym.vector.rollout_env import RolloutVectorEnv


@dataclass(frozen=True, kw_only=True)
class EvalSettings:
    """What an evaluation's numbers follow from.

    Attributes:
        task_suite: A name from `vlac_gym.envs.list_suites`.
        task_ids: Tasks of it.
        policy: Spec of the policy.
        episodes_per_task: How many; episode i starts from initial state i.
        first_episode: The first of them.
        seed: Of all episodes.
        max_episode_steps: Step limit; None for the suite's.
        settle_steps: Steps without motion before an episode.
        image_size: Side of the rendered pictures in pixels.
        critic: Spec of a critic that is asked beside it; None for none.
        critic_interval: Least env steps between two frames that it is asked about.
        done_threshold: success_prob from which its answer counts as done.
    """

    task_suite: str
    task_ids: tuple[int, ...]
    policy: str
    episodes_per_task: int = 50
    first_episode: int = 0
    seed: int = 0
    max_episode_steps: int | None = None
    settle_steps: int = 10
    image_size: int = 256
    critic: str | None = None
    critic_interval: int = 8
    done_threshold: float = 0.9


def planned_episodes(settings: EvalSettings) -> tuple[PlannedEpisode, ...]:
    """All episodes of an evaluation.

    Raises:
        ConfigError: A task, or a number of the settings, does not exist.
    """
    tasks = list_tasks(settings.task_suite)
    counts = {task_id: tasks[task_id].num_init_states for task_id in settings.task_ids}
    return plan_episodes(counts, settings.episodes_per_task, settings.seed, settings.first_episode)


def check_settings(settings: EvalSettings) -> None:
    """Checks all that can be checked before a policy is loaded or a simulator started.

    Raises:
        ConfigError: A setting does not fit.
        DependencyNotInstalled: LIBERO is missing.
    """
    planned_episodes(settings)
    check_post_hoc(settings.done_threshold, settings.critic_interval)
    _libero(settings, None)().close()


def evaluate(
    settings: EvalSettings,
    folder: EvalFolder,
    *,
    num_envs: int = 1,
    policy: Policy | None = None,
    critic: Critic | None = None,
    videos_per_task: int = 3,
    on_progress: Callable[[int, int], None] | None = None,
    vector: VectorOptions | None = None,
    env_fn: Callable[[], gym.Env[Any, Any]] | None = None,
) -> dict[str, Any]:
    """Plays what the folder lacks and writes its results; returns the content of `results.json`.

    Results follow from settings and policy: neither `num_envs` nor an interruption changes them, if the policy answers
    the same whatever is asked beside.

    Args:
        settings: See `EvalSettings`.
        folder: Where to; may hold a part of the run.
        num_envs: Envs at a time, each in a process of its own.
        policy: What `settings.policy` names, if it is made already.
        critic: What `settings.critic` names.
        videos_per_task: Most videos of a task, failures first.
        on_progress: Called with how many of how many episodes are finished.
        vector: Options of `RolloutVectorEnv`.
        env_fn: Makes an env in LIBERO's place, whose resets take `task_id` and `init_state_id`.

    Raises:
        ConfigError: The settings do not fit.
        SimulatorError: An env can't be started; what was finished is kept.
        PolicyError: The policy gave no usable action; what was finished is kept.
    """
    planned = planned_episodes(settings)
    left = [episode for episode in planned if episode not in folder]
    report = on_progress or (lambda done, total: None)
    report(len(folder), len(planned))
    policy = policy or make_policy(settings.policy)
    asked = None
    if critic is not None:
        threshold, interval = settings.done_threshold, settings.critic_interval
        asked = PostHocCritic(critic, done_threshold=threshold, interval_steps=interval)
    shelf = VideoShelf(folder.path, videos_per_task, folder.records)
    make_env = env_fn or _libero(settings, policy)
    try:
        if left:
            for ended in _played(settings, policy, make_env, left, num_envs, vector or VectorOptions()):
                _record(folder, shelf, asked, *ended)
                report(len(folder), len(planned))
    finally:
        results = write_results(folder.path, folder.settings, folder.records, planned=len(planned))
    return results


def _record(
    folder: EvalFolder,
    shelf: VideoShelf,
    asked: PostHocCritic | None,
    planned: PlannedEpisode,
    played: PlayedEpisode,
    footage: Footage,
) -> None:
    """The line last: what belongs to an episode is there when it counts as finished."""
    task, is_lost = str(played.infos[0].get("task", "")), played.is_lost
    record = EpisodeRecord(
        **vars(planned),
        task=task,
        success=None if is_lost else bool(played.finished.sim_success),
        steps=played.finished.num_steps,
        lost=str(played.finished.info["lost_reason"]) if is_lost else None,
        critic=None if asked is None or is_lost else asked.judge(footage, task, planned.episode),
    )
    shelf.offer(record, footage)
    folder.add(record)


def _played(
    settings: EvalSettings,
    policy: Policy,
    make_env: Callable[[], gym.Env[Any, Any]],
    left: Sequence[PlannedEpisode],
    num_envs: int,
    vector: VectorOptions,
) -> Iterator[tuple[PlannedEpisode, PlayedEpisode, Footage]]:
    """The episodes as they end; the envs end with the last."""
    is_privileged = getattr(policy, "is_privileged", False)
    count = min(num_envs, len(left))
    env_fns = [
        partial(SelfDrivenEnv.around, make_env, settings.policy) if is_privileged else make_env
    ] * count
    options: VectorOptions = {**vector, "autoreset_mode": AutoresetMode.DISABLED}
    env = RolloutVectorEnv(env_fns, **options)
    driver: Driver
    if is_privileged:
        driver = InEnvDriver(LOOK_INTERVAL_STEPS, (env.single_action_space.shape or (0,))[0])
    else:
        driver = PolicyDriver(policy, settings.policy, make_env())
    try:
        yield from play_episodes(env, driver, left)
    finally:
        env.close()
        driver.close()


def _libero(settings: EvalSettings, policy: Policy | None) -> Callable[[], gym.Env[Any, Any]]:
    return partial(
        LiberoEnv,
        settings.task_suite,
        settings.task_ids[0],
        cameras=getattr(policy, "cameras", ("agentview", "wrist")),
        image_size=settings.image_size,
        max_episode_steps=settings.max_episode_steps,
        settle_steps=settings.settle_steps,
        max_compiled_models=1,
    )
