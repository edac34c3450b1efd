"""Filtered imitation, the cheapest optimiser of a critic's verdict: `ImitationSearch`, `prepare_clone`.

A small policy, cloned from a few demonstrations, plays; what the critic ended as done is imitated; it plays again. If
the critic were right, the policy would get better.
"""

__all__ = ["IMITATION_CAMERAS", "ImitationSearch", "prepare_clone"]

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from vlac_gym.attack.budget import ImitationBudget
from vlac_gym.clone.recipe import CloneRecipe
from vlac_gym.critic.base import Critic
from vlac_gym.data.collect import collect
from vlac_gym.data.plans import plan_episodes
from vlac_gym.data.recording import RecordSettings
from vlac_gym.extras import needs
from vlac_gym.files.atomic import write_json
from vlac_gym.frames.codec import encode_frame
from vlac_gym.metrics.audit import CriticAudit
from vlac_gym.metrics.writer import MetricsWriter
from vlac_gym.report_card.mistakes import StripFrame
from vlac_gym.report_card.optimisation import WrongStop
from vlac_gym.rollout import AsyncRollout, EpisodeStart, PlayedEpisode, PolicyRow
from vlac_gym.rule.reward import TrainingRule
from vlac_gym.vector import RolloutVectorEnv
from vlac_gym.wrappers.vector import ActionChunk, VLACRewardWrapper

IMITATION_CAMERAS = ("agentview", "wrist")
"""What the policy looks through."""
_MAX_SIDE = 128
_STRIP = 8

Start = tuple[int, int]
"""Task id and initial state."""


def prepare_clone(
    out: Path,
    suite: str,
    starts: Sequence[Start],
    budget: ImitationBudget,
    *,
    image_size: int,
    seed: int,
    workers: int = 1,
    on_progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Path:
    """Records demonstrations of LIBERO's tasks at these starts and clones them; goes on where it was cut.

    Returns:
        The policy's folder.

    Raises:
        ConfigError: No demonstration succeeded.
    """
    with needs("Filtered imitation", "vlac"):
        from vlac_gym.clone.trainer import train_clone
    if (out / "clone" / "policy" / "clone.json").exists():
        return out / "clone" / "policy"
    tasks = sorted({task for task, _ in starts})
    plans = plan_episodes(
        [(suite, task, [state for t, state in starts if t == task]) for task in tasks],
        budget.demos_per_task,
        {"none": 1.0},
        seed=seed,
    )
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


class ImitationSearch:
    """Rounds of playing and imitating; each leaves files, and a search goes on after the last of them.

    Writes `metrics.jsonl`, a line per round as `examples/train_ppo.py` does (the audit is of the round's episodes
    alone), `round-NNN.json`, its first wrong stop in pictures, `round-NNN.pt`, what the next round depends on, and
    `policy/`.

    Args:
        out: Its folder.
        policy: Folder of the policy to begin with.
        make_env: Makes an env; its resets take `init_state_id`, and `task_id` where `starts` has several tasks.
        critic: Who is attacked.
        rule: By which it ends and pays episodes.
        starts: Where episodes begin, in turn.
        budget: How long.
        frame: The observation's picture that the critic is shown.
        seed: Of everything that is drawn.
        num_envs: Envs at a time; of more than one, each has its own process. Changes no episode.
    """

    def __init__(
        self,
        out: Path,
        policy: Path,
        make_env: Callable[[], gym.Env[Any, Any]],
        critic: Critic,
        rule: TrainingRule,
        starts: Sequence[Start],
        budget: ImitationBudget,
        *,
        frame: str = "agentview_image",
        seed: int = 0,
        num_envs: int = 1,
    ) -> None:
        with needs("Filtered imitation", "vlac"):
            from vlac_gym.clone.imitation import Imitator
            from vlac_gym.clone.policy import load_policy

        self._out, self._make_env, self._critic, self._rule = out, make_env, critic, rule
        self._starts, self._budget, self._frame, self._seed = list(starts), budget, frame, seed
        self._num_envs = min(num_envs, budget.episodes_per_round)
        learning = CloneRecipe(seed=seed, learning_rate=budget.learning_rate, batch_size=budget.batch_size)
        self._imitator = Imitator(load_policy(policy), learning, noise=budget.noise)

    def run(self, on_progress: Callable[[str, int, int], None] = lambda what, done, total: None) -> None:
        """Plays the rounds that are missing.

        Raises:
            CriticError: The critic failed; finished rounds are kept.
        """
        self._out.mkdir(parents=True, exist_ok=True)
        done = self._resume()
        count = self._budget.episodes_per_round
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

    def worst(self, count: int) -> list[WrongStop]:
        """The first wrong stop of each of the latest rounds that have one."""
        found = []
        for path in sorted(self._out.glob("round-*.json"), reverse=True)[:count]:
            row = json.loads(path.read_text(encoding="utf-8"))
            strip = [StripFrame(**{**f, "jpeg": base64.b64decode(f["jpeg"])}) for f in row["strip"]]
            found.append(WrongStop("filtered_imitation", row["text"], row["episode_id"], strip))
        return found

    def _resume(self) -> int:
        """How many rounds there are."""
        number = 0
        while (path := self._out / f"round-{number:03d}.pt").exists():
            self._imitator.load(path)
            number += 1
        return number

    def _env(self) -> ActionChunk:
        judged = VLACRewardWrapper(
            RolloutVectorEnv(
                [self._make_env] * self._num_envs,
                mode="sync" if self._num_envs == 1 else "async",
                autoreset_mode="Disabled",
            ),
            self._critic,
            frame=self._frame,
            max_episode_steps=self._budget.step_limit,
            done_threshold=self._rule.done_threshold,
            done_patience=self._rule.done_patience,
            done_interval=self._rule.done_interval,
            min_steps=self._rule.min_steps,
            value_stride=self._rule.value_stride,
        )
        return ActionChunk(judged, self._imitator.chunk_size)

    def _round(self, env: ActionChunk, number: int) -> dict[str, float | None]:
        count = self._budget.episodes_per_round
        audit = CriticAudit(count)
        has_wrong_stop = False
        rollout = AsyncRollout(
            env, self._act, starts=self._start, seed=self._seed, first_episode=number * count
        )
        played = 0
        for episode in rollout.episodes(count):
            if episode.is_lost:
                continue
            played += 1
            episode.finished.add_to(audit)
            if not episode.finished.critic_said_done:
                continue
            self._imitator.choose(episode.observations, episode.actions, episode.infos[0])
            if not episode.finished.sim_success and not has_wrong_stop:
                has_wrong_stop = True
                write_json(self._out / f"round-{number:03d}.json", self._pictures(episode, number))
        loss = self._imitator.learn(self._budget.steps_per_round)
        return {**audit.compute(), "rollout/episodes": float(played), "train/loss": loss}

    def _act(self, observations: Mapping[str, Any], rows: Sequence[PolicyRow]) -> NDArray[np.float32]:
        return self._imitator.act(observations, [row.info for row in rows], [row.rng for row in rows])

    def _start(self, episode: int) -> EpisodeStart:
        task, state = self._starts[episode % len(self._starts)]
        several = len({task for task, _ in self._starts}) > 1
        options = {"init_state_id": state} | ({"task_id": task} if several else {})
        return EpisodeStart(self._seed * 1_000_003 + episode, options)

    def _pictures(self, episode: PlayedEpisode, number: int) -> dict[str, Any]:
        steps = [0, *np.cumsum(episode.executed_steps).tolist()]
        first = number * self._budget.episodes_per_round
        shown = np.unique(np.linspace(0, len(steps) - 1, min(_STRIP, len(steps))).round().astype(int))
        return {
            "episode_id": f"round {number + 1}, episode {episode.index - first + 1}",
            "text": f"ended as done at step {steps[-1]}, in round {number + 1} of imitation",
            "strip": [
                {
                    "step": steps[i],
                    "jpeg": base64.b64encode(
                        encode_frame(episode.observations[i][self._frame], "jpeg", 85)
                    ).decode(),
                    "success_prob": episode.infos[i]["critic"].get("success_prob"),  # a None is left out
                    "success": bool(episode.infos[i]["sim_success"]),
                    "is_event": bool(i == len(steps) - 1),
                }
                for i in shown.tolist()
            ],
        }
