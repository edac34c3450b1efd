"""Collecting episodes with worker processes: `collect`, `CollectedEpisode`, `CollectReport`."""

__all__ = ["CollectReport", "CollectedEpisode", "check_plans", "collect"]

import functools
import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlac_gym.data.episodes import read_episode, write_episode
from vlac_gym.data.plans import EpisodePlan
from vlac_gym.data.recording import RecordSettings, policy_cameras, record_episode
from vlac_gym.errors import ConfigError, SimulatorError
from vlac_gym.policies import ChunkPolicy, Policy, make_policy

_CHUNK = 12
"""Most episodes of one task that a worker takes at a time: compiling a task takes seconds."""


@dataclass(frozen=True)
class CollectedEpisode:
    """How one planned episode went.

    Attributes:
        episode_id: Which one.
        num_steps: Env steps; 0 if it was lost.
        succeeded: Whether the simulator ever saw success.
        ends_in_success: Whether it still held at the end.
        error: Why it was lost; empty if it was written.
    """

    episode_id: str
    num_steps: int = 0
    succeeded: bool = False
    ends_in_success: bool = False
    error: str = ""


@dataclass
class CollectReport:
    """What a collection did.

    Attributes:
        outcomes: Episodes run now, in order of completion.
        skipped: Episodes that were there already.
    """

    outcomes: list[CollectedEpisode] = field(default_factory=list)
    skipped: int = 0

    @property
    def lost(self) -> list[CollectedEpisode]:
        """Episodes that the simulator lost; resuming tries them again."""
        return [outcome for outcome in self.outcomes if outcome.error]


def collect(
    plans: Sequence[EpisodePlan],
    out: Path,
    settings: RecordSettings | None = None,
    *,
    workers: int = 1,
    on_outcome: Callable[[CollectedEpisode], None] | None = None,
) -> CollectReport:
    """Runs plans and writes each episode when it is finished; episodes that exist are skipped.

    What is in the folder already must have been recorded with the same settings.

    An interrupted collection continues when it is called again: every file is whole, and the same plan has
    the same file name.

    Args:
        plans: What to collect.
        out: Dataset folder, made if it is not there.
        settings: What to keep of each step.
        workers: Worker processes, each with its own simulator; 1 runs in this process.
        on_outcome: Called after each episode, in this process.

    Raises:
        ConfigError: Two plans have the same id, a plan names an unknown suite, task or policy, or the
            settings an unknown view, or `out` holds episodes recorded with other settings.
        SimulatorError: A worker process died; what was finished is kept.
    """
    settings = settings or RecordSettings()
    check_plans(plans, settings, workers)
    _check_continued(out, settings)
    waiting = [plan for plan in plans if not plan.is_recorded(out)]
    report = CollectReport(skipped=len(plans) - len(waiting))
    (out / "episodes").mkdir(parents=True, exist_ok=True)
    chunks = _chunks(waiting, workers)
    run = functools.partial(_run_chunk, out=out, settings=settings)
    for outcome in _run_here(run, chunks) if workers == 1 else _run_in_workers(run, chunks, workers):
        report.outcomes.append(outcome)
        if on_outcome is not None:
            on_outcome(outcome)
    return report


def check_plans(plans: Sequence[EpisodePlan], settings: RecordSettings, workers: int) -> None:
    """Checks all that `collect` can check before a simulator starts.

    Raises:
        ConfigError: See `collect`.
    """
    from vlac_gym.envs.libero.lighting import split_view
    from vlac_gym.envs.libero.tasks import get_task

    for view in settings.cameras:
        split_view(view)
    if workers < 1:
        raise ConfigError(f"Expected workers >= 1, got {workers}.")
    ids = [plan.episode_id for plan in plans]
    if len(set(ids)) < len(ids):
        twice = next(i for i in ids if ids.count(i) > 1)
        raise ConfigError(f"Two plans have the id {twice!r}. Give them different seeds.")
    for suite, task_id in sorted({(plan.task_suite, plan.task_id) for plan in plans}):
        get_task(suite, task_id)
    for suite in sorted({plan.task_suite for plan in plans}):
        _make_env(suite, settings).close()  # checks its arguments; the simulator starts on the first reset
    for policy in sorted({plan.policy for plan in plans}):
        make_policy(policy)


def _check_continued(out: Path, settings: RecordSettings) -> None:
    for path in sorted((out / "episodes").glob("*.npz"))[:1]:  # one stands for all, each of which was checked
        settings.check_match(read_episode(path))


def _chunks(plans: Sequence[EpisodePlan], workers: int) -> list[list[EpisodePlan]]:
    by_task: dict[tuple[str, int], list[EpisodePlan]] = {}
    for plan in plans:
        by_task.setdefault((plan.task_suite, plan.task_id), []).append(plan)
    size = max(1, min(_CHUNK, -(-len(plans) // (2 * workers))))
    return [group[i : i + size] for group in by_task.values() for i in range(0, len(group), size)]


def _run_here(
    run: Callable[..., Iterator[CollectedEpisode]], chunks: Sequence[Sequence[EpisodePlan]]
) -> Iterator[CollectedEpisode]:
    try:
        for chunk in chunks:
            yield from run(chunk)
    finally:
        _close_env()


def _run_in_workers(
    run: Callable[..., Iterator[CollectedEpisode]], chunks: Sequence[Sequence[EpisodePlan]], workers: int
) -> Iterator[CollectedEpisode]:
    context = multiprocessing.get_context("spawn")
    outcomes: Any = context.Queue()
    stop: Any = context.Event()
    pool = ProcessPoolExecutor(workers, context, _start_worker, (outcomes, stop))
    left = sum(map(len, chunks))
    try:
        futures = [pool.submit(_report_chunk, run, chunk) for chunk in chunks]
        while left:
            try:
                yield outcomes.get(timeout=0.5)
                left -= 1
            except queue.Empty:
                for future in futures:
                    if future.done():
                        future.result()
    except BrokenProcessPool as e:
        raise SimulatorError(
            "A collecting process died (out of memory, the simulator crashed, or a script calls this without "
            "`if __name__ == '__main__':`). Finished episodes are kept: run the same command with --resume, and "
            "with fewer workers if memory was short."
        ) from e
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


_outcomes: Any = None
"""Where a worker process puts outcomes; set once when the process starts."""

_stop: Any = None
"""Tells a worker process to leave the rest of its chunk; set with `_outcomes`."""


def _start_worker(outcomes: Any, stop: Any) -> None:
    global _outcomes, _stop
    _outcomes, _stop = outcomes, stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides; the episode in hand is finished
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Ends this process when its parent is gone: a pool's workers hold both ends of their queue."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # this is a worker
    parent.join()
    os._exit(1)


def _report_chunk(run: Callable[..., Iterator[CollectedEpisode]], chunk: Sequence[EpisodePlan]) -> None:
    for outcome in run(chunk):
        _outcomes.put(outcome)
        if _stop.is_set():
            return


def _run_chunk(
    chunk: Sequence[EpisodePlan], *, out: Path, settings: RecordSettings
) -> Iterator[CollectedEpisode]:
    policies = {spec: make_policy(spec) for spec in sorted({plan.policy for plan in chunk})}
    cameras = tuple(sorted({camera for policy in policies.values() for camera in policy_cameras(policy)}))
    env = _env(chunk[0].task_suite, settings, cameras)
    try:
        for plan in chunk:
            yield _recorded(env, policies[plan.policy], plan, out, settings)
    finally:
        for policy in policies.values():
            if isinstance(policy, ChunkPolicy):
                policy.close()


def _recorded(
    env: Any, policy: Policy, plan: EpisodePlan, out: Path, settings: RecordSettings
) -> CollectedEpisode:
    try:
        episode = record_episode(env, policy, plan, settings)
    except (SimulatorError, ConfigError) as e:  # ConfigError: a fault that does not fit this task's goal
        return CollectedEpisode(plan.episode_id, error=str(e))
    write_episode(out, episode)
    return CollectedEpisode(
        plan.episode_id,
        episode.num_steps,
        succeeded=episode.first_success_step is not None,
        ends_in_success=episode.ends_in_success,
    )


_envs: dict[str, Any] = {}
"""This process's env, by suite; at most one, and one compiled task in it, so that 16 workers fit into memory."""


def _env(task_suite: str, settings: RecordSettings, cameras: Sequence[str]) -> Any:
    key = f"{task_suite} {settings} {cameras}"
    if key not in _envs:
        _close_env()
        _envs[key] = _make_env(task_suite, settings, cameras)
    return _envs[key]


def _make_env(task_suite: str, settings: RecordSettings, cameras: Sequence[str] = ()) -> Any:
    """An env of the settings' cameras and those that policies see."""
    from vlac_gym.envs.libero import LiberoEnv
    from vlac_gym.envs.libero.lighting import split_view

    return LiberoEnv(
        task_suite,
        cameras=tuple(dict.fromkeys((*(split_view(view)[0] for view in settings.cameras), *cameras))),
        image_size=settings.image_size,
        max_episode_steps=settings.max_episode_steps,
        max_compiled_models=1,
    )


def _close_env() -> None:
    while _envs:
        _envs.popitem()[1].close()
