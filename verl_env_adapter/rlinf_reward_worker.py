"""RLinf's reward worker as a critic: `RewardWorkerCritic`, spec ``rlinf_reward_worker:[gpu=N,]CRITIC``."""

__all__ = ["RewardWorkerCritic"]

import importlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from verl_env_adapter.sources import RLINF
from vlac_gym.critic.base import check_frames, check_same_length, check_tasks
from vlac_gym.errors import (
    ConfigError,
    CriticError,
    CriticResponseError,
    CriticServerError,
    CriticTimeoutError,
)
from vlac_gym.extras import needs
from vlac_gym.types import CriticInfo, FloatArray, Frame

_TIMEOUT_S = 120.0
_START_TIMEOUT_S = 900.0

_WORKERS: dict[str, Any] = {}
"""Spec -> actor: the stages of an env worker share one reward worker."""


class RewardWorkerCritic:
    """Asks an `EmbodiedRewardWorker` of RLinf, which holds the critic, within the env's own step.

    The worker is started on first use, in the way RLinf starts those of its real robots: one for each env worker
    process, on its node. A question is one remote call about all envs that have it.

    Args:
        critic: Spec of the critic inside, e.g. ``transformers:/checkpoints/vlac``.
        gpu: RLinf's hardware rank for it; None lets it start without one.
        worker: An actor with a method `compute_image_rewards`, for tests.
        timeout_s: Deadline of a question; RLinf's own channel has none.
    """

    def __init__(
        self, critic: str, *, gpu: int | None = None, worker: Any = None, timeout_s: float = _TIMEOUT_S
    ) -> None:
        self._critic = critic
        self._gpu = gpu
        self._worker = worker
        self._timeout_s = timeout_s

    @classmethod
    def from_spec(cls, argument: str, **options: Any) -> "RewardWorkerCritic":
        """Builds it from the text after ``rlinf_reward_worker:``.

        Raises:
            ConfigError: No critic is named.
        """
        found = re.fullmatch(r"(?:gpu=(\d+),)?(.+)", argument.strip())
        if found is None or found[2].startswith("gpu="):
            raise ConfigError(
                f"Expected 'rlinf_reward_worker:CRITIC' or 'rlinf_reward_worker:gpu=0,CRITIC', got {argument!r}."
            )
        return cls(found[2], gpu=int(found[1]) if found[1] else None, **options)

    def success_prob(self, frames: Sequence[Frame], tasks: Sequence[str]) -> FloatArray:
        """See `Critic`."""
        check_frames(frames)
        check_tasks(tasks)
        check_same_length(frames=frames, tasks=tasks)
        return self._ask("success_prob", len(frames), frames=list(frames), tasks=list(tasks))

    def progress(
        self,
        before: Sequence[Frame],
        after: Sequence[Frame],
        tasks: Sequence[str],
        references: Sequence[Frame] | None = None,
    ) -> FloatArray:
        """See `Critic`."""
        check_frames(before)
        check_frames(after)
        check_same_length(before=before, after=after, tasks=tasks)
        return self._ask(
            "progress",
            len(before),
            before=list(before),
            after=list(after),
            tasks=list(tasks),
            references=references,
        )

    def value(
        self, frames: Sequence[Frame], task: str, references: Sequence[Frame] | None = None
    ) -> FloatArray:
        """See `Critic`."""
        check_frames(frames)
        return self._ask("value", len(frames), frames=list(frames), task=task, references=references)

    def describe(self) -> CriticInfo:
        """Names it; starts nothing."""
        return CriticInfo(name="rlinf_reward_worker", model=self._critic, device="remote")

    def close(self) -> None:
        """Lets go of the worker, which lives as long as its env worker."""
        self._worker = None

    def _ask(self, method: str, count: int, **arguments: Any) -> FloatArray:
        if count == 0:
            return np.zeros(0, dtype=np.float32)
        ray = _import("ray")
        if self._worker is None:
            self._worker = _worker(self._critic, self._gpu)
        question = {"method": method, "arguments": arguments}
        try:
            reply = ray.get(self._worker.compute_image_rewards.remote(question), timeout=self._timeout_s)
        except ray.exceptions.GetTimeoutError as e:
            raise CriticTimeoutError(
                f"No reply from RLinf's reward worker in {self._timeout_s:.0f} s ({method}, {count} frames)."
            ) from e
        except ray.exceptions.RayTaskError as e:
            if isinstance(e.cause, CriticError):
                raise e.cause from e
            raise CriticServerError(f"RLinf's reward worker failed: {e.cause}") from e
        except ray.exceptions.RayActorError as e:
            raise CriticServerError(f"RLinf's reward worker died: {e}") from e
        answer = np.asarray(reply, dtype=np.float32).reshape(-1)
        if len(answer) != count:
            raise CriticResponseError(
                f"Expected {count} numbers from RLinf's reward worker, got {len(answer)}."
            )
        return answer


def _worker(critic: str, gpu: int | None) -> Any:
    key = f"{gpu}:{critic}"
    if key not in _WORKERS:
        actor = _launch(critic, gpu)
        ray = _import("ray")
        # Not through the group, whose failures end this process with a signal and no word.
        try:
            ray.get(actor.init_worker.remote(), timeout=_START_TIMEOUT_S)
        except ray.exceptions.RayError as e:
            raise CriticServerError(f"RLinf's reward worker could not start {critic!r}: {e}") from e
        _WORKERS[key] = actor
    return _WORKERS[key]


def _launch(critic: str, gpu: int | None) -> Any:
    """Starts the worker as `EmbodiedRewardWorker.launch_for_realworld` does, which 0.3.0 gives no ``runner``."""
    scheduler, config = _import("rlinf.scheduler"), _import("omegaconf").OmegaConf
    reward_worker = _import("rlinf.workers.reward.reward_worker").EmbodiedRewardWorker
    host = scheduler.Worker.current_worker
    if gpu is None:
        placement = scheduler.NodePlacementStrategy([host._cluster_node_rank])
    else:
        placement = scheduler.FlexiblePlacementStrategy([[gpu]])
    model = {"model_type": "vlac_gym", "critic": critic}
    cfg = config.create({"reward": {"standalone_realworld": True, "model": model}, "runner": {}})
    group = reward_worker.create_group(cfg).launch(
        cluster=scheduler.Cluster(),
        placement_strategy=placement,
        name=f"VLACGymCritic-{host._rank}-{len(_WORKERS)}",
    )
    return group.worker_info_list[0].worker


def _import(name: str) -> Any:
    with needs("The critic rlinf_reward_worker", get=RLINF):
        return importlib.import_module(name)
