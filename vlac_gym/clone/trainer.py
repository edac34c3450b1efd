"""Trains a policy by behaviour cloning of recorded episodes: `train_clone`."""

__all__ = ["train_clone"]

import io
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vlac_gym import __version__
from vlac_gym.clone.demonstrations import Demonstrations, choose_demonstrations, load_demonstrations
from vlac_gym.clone.imitation import chunk_means, imitation_step
from vlac_gym.clone.policy import ClonePolicy, load_weights, save_policy, untrained_policy
from vlac_gym.clone.recipe import CloneRecipe
from vlac_gym.data.dataset import EpisodeDataset
from vlac_gym.errors import ConfigError
from vlac_gym.extras import needs
from vlac_gym.files.atomic import write_bytes, write_json
from vlac_gym.files.output_folder import claim_folder
from vlac_gym.metrics.writer import MetricsWriter
from vlac_gym.training.device import pick_device

with needs("Cloning", "vlac"):
    import torch
    from torch import Tensor

_FILES = ("policy", "state.pt", "metrics.jsonl")
_MAX_HELD_OUT = 2048
"""Decisions that the held-out error is measured on, at most."""
_MIN_STATE_STD = 0.01
"""Of a number of the state that hardly changes: m, rad."""


def train_clone(
    data: str | Path,
    out: str | Path,
    recipe: CloneRecipe | None = None,
    *,
    device: str | None = None,
    resume: bool = False,
    on_progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Path:
    """Learns to act as the episodes of a folder do.

    Smooth L1 loss between the policy's chunk and the episode's actions (those that the expert asked for, where noise
    was executed), AdamW with a cosine, in bfloat16 on a GPU and float32 on a CPU, where a run that was cut and resumed
    ends in the same weights, bit for bit, as an uncut one. A step's batch and shifts depend on the seed and the step
    alone.

    Writes `metrics.jsonl` (`train/loss`, `train/learning_rate`, `held_out/action_error`: the mean absolute error of an
    action's numbers, the policy's bounded to [-1, 1]), `state.pt` (to resume), and at the end `policy/`: what
    `load_policy` reads, and `clone.json` with the recipe, the tasks, the episodes and their digest.

    Args:
        data: Folder of episodes, as `vlac-gym collect` writes them, with a frame of every step.
        out: Folder of the run, new or empty unless `resume`.
        recipe: Settings.
        device: `cuda` or `cpu`; the first GPU by default.
        resume: Continue the run that `out` holds; with the same recipe and data.
        on_progress: Called with what is done (``"episodes"`` read, ``"steps"`` taken), how many, and of how many.

    Returns:
        The policy's folder.

    Raises:
        ConfigError: The episodes, the recipe, the device or `out` do not fit, or the run to resume was another.
    """
    recipe = recipe or CloneRecipe()
    chosen = pick_device(device)
    train, held_out = choose_demonstrations(EpisodeDataset.open(data), recipe)
    tasks = [f"{suite}:{task_id}" for suite, task_id in train.tasks()]
    policy = untrained_policy(tasks, recipe.chunk_size, recipe.image_size, recipe.cameras, seed=recipe.seed)
    with claim_folder(Path(out), resume=resume, ours=_FILES) as folder:
        trainer = _Trainer(policy, recipe, folder, chosen)
        trainer.load(train, held_out, on_progress)
        trainer.run(on_progress)
    return folder / "policy"


class _Trainer:
    """State of one run."""

    def __init__(self, policy: ClonePolicy, recipe: CloneRecipe, out: Path, device: torch.device) -> None:
        self._policy, self._recipe, self._out, self._device = policy.to(device), recipe, out, device
        self._optimizer = torch.optim.AdamW(
            policy.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        self._held_out: Demonstrations | None = None
        self._error: float | None = None
        self._step = 0

    def load(
        self,
        train: EpisodeDataset,
        held_out: EpisodeDataset | None,
        on_progress: Callable[[str, int, int], None],
    ) -> None:
        """Reads the episodes, and what an earlier run left."""
        total, read = len(train) + len(held_out or ()), 0

        def count() -> None:
            nonlocal read
            read += 1
            on_progress("episodes", read, total)

        tasks = self._policy.tasks
        known = held_out.select(lambda entry: _name(entry.meta) in tasks) if held_out is not None else None
        demos, digest = load_demonstrations(train, self._recipe, tasks, on_episode=count)
        if known:
            rest, _ = load_demonstrations(known, self._recipe, tasks, limit=_MAX_HELD_OUT, on_episode=count)
            self._held_out = rest.to(self._device)
        self._demos = demos.to(self._device)
        self._policy.state_mean.copy_(demos.states.mean(dim=0))
        self._policy.state_std.copy_(demos.states.std(dim=0, correction=0).clamp(min=_MIN_STATE_STD))
        self._facts: dict[str, Any] = {
            "vlac_gym": __version__,
            "data_sha256": digest,
            "tasks": list(tasks),
            "episodes": [entry.meta.episode_id for entry in train.entries],
            "held_out_states": sorted({entry.meta.init_state_id for entry in known.entries}) if known else [],
            "recipe": json.loads(json.dumps(asdict(self._recipe))),
        }
        self._resume()

    def run(self, on_progress: Callable[[str, int, int], None]) -> None:
        """Trains to the last step and writes the policy."""
        steps, every = self._recipe.steps, self._recipe.save_every_steps
        losses: list[Tensor] = []
        with MetricsWriter(self._out, last_step=self._step) as writer:
            while self._step < steps:
                rate = self._learning_rate()
                losses.append(
                    imitation_step(self._policy, self._optimizer, self._demos, self._recipe, self._step, rate)
                )
                self._step += 1
                if self._step % every == 0 or self._step == steps:
                    self._error = self._held_out_error()
                    loss = torch.stack(losses).mean()
                    losses = []
                    metrics: dict[str, Any] = {"train/loss": loss, "train/learning_rate": rate}
                    writer.write(self._step, metrics | {"held_out/action_error": self._error})
                    self._save_state()
                on_progress("steps", self._step, steps)
        self._write_policy()

    def _learning_rate(self) -> float:
        return self._recipe.learning_rate * 0.5 * (1.0 + math.cos(math.pi * self._step / self._recipe.steps))

    @torch.no_grad()
    def _measure_features(self) -> None:
        """Tells the policy the mean of its features over what it imitates."""
        demos, total = self._demos, torch.zeros_like(self._policy.feature_mean)
        for rows, pictures in self._batches(demos):
            tasks = self._policy.one_hot(demos.tasks[rows])
            total += self._policy.features(pictures, demos.states[rows], tasks).sum(0)
        self._policy.feature_mean.copy_(total / len(demos))

    @torch.no_grad()
    def _held_out_error(self) -> float | None:
        demos = self._held_out
        if demos is None:
            return None
        self._policy.eval()
        errors = []
        for rows, pictures in self._batches(demos):
            actions = chunk_means(self._policy, demos, pictures, rows).clamp(-1.0, 1.0)
            errors.append((actions - demos.chunks[rows]).abs().mean(dim=(1, 2)))
        self._policy.train()
        return float(torch.cat(errors).mean())

    def _batches(self, demos: Demonstrations) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        """All decisions in turn: which they are, and their pictures."""
        for begin in range(0, len(demos), self._recipe.batch_size):
            end = min(begin + self._recipe.batch_size, len(demos))
            rows = torch.arange(begin, end, device=self._device)
            yield rows, {camera: every[rows] for camera, every in demos.pictures.items()}

    def _save_state(self) -> None:
        buffer = io.BytesIO()
        facts = json.dumps(self._facts)
        state = {
            "step": self._step,
            "facts": facts,
            "error": self._error,
            "policy": self._policy.state_dict(),
        }
        torch.save({**state, "optimizer": self._optimizer.state_dict()}, buffer)
        write_bytes(self._out / "state.pt", buffer.getvalue())

    def _resume(self) -> None:
        path = self._out / "state.pt"
        if not path.exists():
            return
        state = torch.load(path, map_location=self._device, weights_only=True)
        before = json.loads(state["facts"])
        changed = [
            f"{name} was {was.get(name)!r}, is {value!r}"
            for was, now in ((before["recipe"], self._facts["recipe"]), (before, self._facts))
            for name, value in now.items()
            if name in (*self._facts["recipe"], "tasks", "data_sha256") and was.get(name) != value
        ]
        if changed:
            raise ConfigError(
                f"Can't continue the training in {self._out} with another recipe or other episodes: "
                f"{'; '.join(changed)}."
            )
        # Measured after the last step: a run of before there was such a mean gets it like any other.
        load_weights(self._policy, {"feature_mean": self._policy.feature_mean, **state["policy"]}, path)
        self._optimizer.load_state_dict(state["optimizer"])
        self._step, self._error = state["step"], state["error"]

    def _write_policy(self) -> None:
        folder = self._out / "policy"
        self._measure_features()
        save_policy(self._policy, folder)
        write_json(folder / "clone.json", {**self._facts, "held_out_action_error": self._error})


def _name(meta: Any) -> str:
    return f"{meta.task_suite}:{meta.task_id}"
