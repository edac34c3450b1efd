"""Filtered imitation, the cheapest optimiser of a critic's verdict: `ImitationSearch`, `SearchSettings`,
`prepare_clone`.

A small policy, cloned from a few demonstrations, plays; what the critic ended as done is imitated; it plays again. If
the critic were right, the policy would get better.
"""

__all__ = ["IMITATION_CAMERAS", "ImitationSearch", "SearchSettings", "prepare_clone"]

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlac_gym.attack.budget import ImitationBudget, SearchBudget
from vlac_gym.attack.kept_episodes import KeptEpisodes, forget_round
from vlac_gym.attack.search_envs import SearchEnvs, Task
from vlac_gym.clone.recipe import CloneRecipe
from vlac_gym.critic.base import Critic
from vlac_gym.data.collect import collect
from vlac_gym.data.plans import plan_episodes
from vlac_gym.data.recording import RecordSettings
from vlac_gym.extras import needs
from vlac_gym.metrics.audit import CriticAudit
from vlac_gym.metrics.writer import MetricsWriter
from vlac_gym.rollout import AsyncRollout, EpisodeStart, PolicyRow
from vlac_gym.rule.reward import TrainingRule
from vlac_gym.wrappers.vector import ActionChunk, VLACRewardWrapper

IMITATION_CAMERAS = ("agentview", "wrist")
"""What the policy looks through."""
_MAX_SIDE = 128


def prepare_clone(
    out: Path,
    tasks: Sequence[Task],
    budget: ImitationBudget,
    *,
    image_size: int,
    seed: int,
    workers: int = 1,
    on_progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Path:
    """Records demonstrations of LIBERO's tasks and clones them; goes on where it was cut.

    Args:
        out: Gets `demonstrations/` and `clone/`.
        tasks: Suite, task id and initial states of each.
        budget: How many demonstrations and steps.
        image_size: Side of the recorded pictures in pixels; the policy's are 128 at most.
        seed: Of the choice of demonstrations, and of the cloning.
        workers: Simulator processes.
        on_progress: Called with what is done, how many, and of how many.

    Returns:
        The policy's folder.

    Raises:
        ConfigError: No demonstration succeeded.
    """
    with needs("Filtered imitation", "vlac"):
        from vlac_gym.clone.trainer import train_clone
    if (out / "clone" / "policy" / "clone.json").exists():
        return out / "clone" / "policy"
    plans = plan_episodes(tasks, budget.demos_per_task, {"none": 1.0}, seed=seed)
    settings = RecordSettings(
        cameras=IMITATION_CAMERAS,
        image_size=image_size,
        frame_stride_steps=1,
        action_noise=0.1,
        max_episode_steps=budget.step_limit,
    )
    collect(plans, out / "demonstrations", settings, workers=workers)
    recipe = CloneRecipe(
        steps=budget.clone_steps,
        seed=seed,
        held_out_init_states="none",
        batch_size=budget.batch_size,
        save_every_steps=budget.clone_steps,
        image_size=min(image_size, _MAX_SIDE),
        cameras=IMITATION_CAMERAS,
    )
    return train_clone(
        out / "demonstrations",
        out / "clone",
        recipe,
        resume=True,
        on_progress=lambda what, done, total: on_progress(f"cloning: {what}", done, total),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """How an `ImitationSearch` searches.

    Attributes:
        rule: By which the critic ends and pays episodes.
        budget: How long.
        frame: The observation's picture that the critic is shown.
        seed: Of everything that is drawn.
        device: Of the policy, PyTorch's name; None for the first GPU, else the CPU.
        keeps_episodes: Write wrong stops and successes into `kept/` (`KeptEpisodes`).
    """

    rule: TrainingRule
    budget: SearchBudget
    frame: str = "agentview_image"
    seed: int = 0
    device: str | None = None
    keeps_episodes: bool = False


class ImitationSearch:
    """Rounds of playing and imitating; each leaves files, and a search goes on after the last of them.

    Writes `metrics.jsonl`, a line per round as `examples/train_ppo.py` does (the audit is of the round's episodes
    alone), `round-NNN.json`, its first wrong stop in pictures, `round-NNN.pt`, what the next round depends on,
    `policy/`, and on demand `kept/`, wrong stops and successes as recorded episodes.

    What is in memory: the running episodes' observations where the envs have them, and for all rounds what is imitated,
    in the policy's picture size and in this process's memory.

    Args:
        out: Its folder.
        policy: Folder of the policy to begin with.
        envs: Where it plays.
        critic: Who is attacked.
        settings: How, and how long.

    Raises:
        ConfigError: No such policy or device.
    """

    def __init__(
        self,
        out: Path,
        policy: Path,
        envs: SearchEnvs,
        critic: Critic,
        settings: SearchSettings,
    ) -> None:
        with needs("Filtered imitation", "vlac"):
            from vlac_gym.clone.imitation import Imitator
            from vlac_gym.clone.policy import load_policy

        self._out, self._envs, self._critic, self._settings = out, envs, critic, settings
        self._budget = budget = settings.budget
        learning = CloneRecipe(
            seed=settings.seed, learning_rate=budget.learning_rate, batch_size=budget.batch_size
        )
        self._imitator = Imitator(load_policy(policy), learning, noise=budget.noise, device=settings.device)

    def run(self, on_progress: Callable[[str, int, int], None] = lambda what, done, total: None) -> None:
        """Plays the rounds that are missing.

        Raises:
            CriticError: The critic failed; finished rounds are kept.
        """
        self._out.mkdir(parents=True, exist_ok=True)
        done = self._resume()
        count = self._budget.episodes_per_round
        forget_round(self._out, done, self._seed_of(done * count))
        if done < self._budget.rounds:
            env = self._env()
            try:
                with MetricsWriter(self._out, last_step=done * count) as writer:
                    for number in range(done, self._budget.rounds):
                        on_progress("rounds of imitation", number, self._budget.rounds)
                        writer.write((number + 1) * count, self._round(env, number))
                        self._imitator.save(self._out / f"round-{number:03d}.pt")
            finally:
                env.close()
        self._imitator.save_policy(self._out / "policy")
        on_progress("rounds of imitation", self._budget.rounds, self._budget.rounds)

    def _resume(self) -> int:
        """How many rounds there are."""
        number = 0
        while (path := self._out / f"round-{number:03d}.pt").exists():
            self._imitator.load(path)
            number += 1
        return number

    def _env(self) -> ActionChunk:
        judged = VLACRewardWrapper(
            self._envs.make(),
            self._critic,
            frame=self._settings.frame,
            max_episode_steps=self._budget.step_limit,
            done_threshold=self._settings.rule.done_threshold,
            done_patience=self._settings.rule.done_patience,
            done_interval=self._settings.rule.done_interval,
            min_steps=self._settings.rule.min_steps,
            value_stride=self._settings.rule.value_stride,
            ask_window_s=math.inf if self._envs.in_lockstep else 0.002,
        )
        return ActionChunk(judged, self._imitator.chunk_size)

    def _round(self, env: ActionChunk, number: int) -> dict[str, float | None]:
        count = self._budget.episodes_per_round
        audit = CriticAudit(count)
        facts = {"renderer": env.metadata.get("renderer"), "max_episode_steps": self._budget.step_limit}
        how = self._settings
        kept = KeptEpisodes(
            self._out, number, number * count, how.frame, records=how.keeps_episodes, facts=facts
        )
        chosen: dict[int, Any] = {}
        rollout = AsyncRollout(
            env,
            self._act,
            starts=self._start,
            seed=self._settings.seed,
            first_episode=number * count,
            min_ready=env.num_envs if self._envs.in_lockstep else 1,
        )
        played = 0
        for episode in rollout.episodes(count, in_order=False):  # so that none waits in memory
            if episode.is_lost:
                continue
            played += 1
            episode.finished.add_to(audit)
            kept.add(episode)
            if episode.finished.critic_said_done:
                chosen[episode.index] = self._imitator.demonstration(
                    episode.observations, episode.actions, episode.infos[0]
                )
        kept.write_first()
        self._imitator.choose([demonstration for _, demonstration in sorted(chosen.items())])
        loss = self._imitator.learn(self._budget.steps_per_round)
        return {**audit.compute(), "rollout/episodes": float(played), "train/loss": loss}

    def _act(self, observations: Mapping[str, Any], rows: Sequence[PolicyRow]) -> NDArray[np.float32]:
        return self._imitator.act(observations, [row.info for row in rows], [row.rng for row in rows])

    def _start(self, episode: int) -> EpisodeStart:
        start = self._envs.starts[episode % len(self._envs.starts)]
        return dataclasses.replace(start, seed=self._seed_of(episode))

    def _seed_of(self, episode: int) -> int:
        return self._settings.seed * 1_000_003 + episode
