"""One step of imitation, and a policy that imitates its own episodes: `imitation_step`, `chunk_means`, `Imitator`."""

__all__ = ["Imitator", "chunk_means", "imitation_step"]

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator

from vlac_gym.clone.demonstrations import Demonstrations, small_picture
from vlac_gym.clone.policy import ClonePolicy, load_weights, save_policy
from vlac_gym.clone.recipe import CloneRecipe
from vlac_gym.extras import needs
from vlac_gym.files.atomic import write_bytes
from vlac_gym.training.device import pick_device
from vlac_gym.types import FloatArray

with needs("Cloning", "vlac"):
    import torch
    from torch import Tensor
    from torch.nn import functional


def imitation_step(
    policy: ClonePolicy,
    optimizer: torch.optim.Optimizer,
    demos: Demonstrations,
    recipe: CloneRecipe,
    step: int,
    learning_rate: float,
) -> Tensor:
    """One step of the optimiser on a batch of decisions; batch and shifts follow from the recipe's seed and `step`.

    Returns:
        The smooth L1 loss between the policy's chunks and the labels, detached.
    """
    rng = np.random.default_rng((recipe.seed, step))
    device = demos.states.device
    rows = torch.from_numpy(rng.integers(len(demos), size=recipe.batch_size)).to(device)
    span = recipe.max_shift_px
    shifts = rng.integers(-span, span + 1, size=(len(demos.pictures), recipe.batch_size, 2))
    pictures = {
        camera: _shifted(every, rows, torch.from_numpy(shift).to(device))
        for (camera, every), shift in zip(demos.pictures.items(), shifts)
    }
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    loss = functional.smooth_l1_loss(chunk_means(policy, demos, pictures, rows), demos.chunks[rows])
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss.detach()


def chunk_means(
    policy: ClonePolicy, demos: Demonstrations, pictures: dict[str, Tensor], rows: Tensor
) -> Tensor:
    """The policy's chunks for chosen decisions, float32 (B, T, 7); in bfloat16 inside on a GPU."""
    tasks = policy.one_hot(demos.tasks[rows])
    device = demos.states.device.type
    with torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
        means, _, _ = policy(pictures, demos.states[rows], tasks, demos.env_steps[rows])
    return means.float()  # type: ignore[no-any-return]


class Imitator:
    """A clone policy that acts with noise, and imitates episodes of its own that somebody chose.

    Args:
        policy: Where it begins.
        recipe: Batch size, learning rate (constant), shifts and seed.
        noise: Standard deviation of the noise on each number of an action.
        device: PyTorch's name; None for the first GPU, else the CPU.

    Raises:
        ConfigError: No such device.
    """

    def __init__(
        self, policy: ClonePolicy, recipe: CloneRecipe, *, noise: float, device: str | None = None
    ) -> None:
        self._device = pick_device(device)
        self._policy, self._recipe, self._noise = policy.to(self._device), recipe, noise
        self._chosen: list[Demonstrations] = []
        self._fresh = self._step = 0

    @property
    def chunk_size(self) -> int:
        """Actions per decision."""
        return self._policy.chunk_size

    @property
    def cameras(self) -> tuple[str, ...]:
        """What it looks through."""
        return self._policy.cameras

    @torch.no_grad()
    def act(
        self, observations: Mapping[str, Any], infos: Sequence[Mapping[str, Any]], rngs: Sequence[Generator]
    ) -> FloatArray:
        """Chunks float32 (K, T, 7) in [-1, 1] for K observations, with noise from the generator of each.

        Raises:
            PolicyError: A task that the policy was not trained on, or an info that does not tell the time to an offset.
        """
        images = {c: torch.as_tensor(observations[f"{c}_image"], device=self._device) for c in self.cameras}
        states = torch.as_tensor(observations["state"], dtype=torch.float32, device=self._device)
        tasks, env_steps = self._policy.read_infos(infos)
        means, _, _ = self._policy(images, states, tasks, env_steps)
        noise = np.stack([rng.normal(0.0, self._noise, means.shape[1:]) for rng in rngs])
        actions: FloatArray = np.clip(means.float().cpu().numpy() + noise, -1.0, 1.0).astype(np.float32)
        return actions

    def demonstration(
        self, observations: Sequence[Mapping[str, Any]], chunks: Sequence[FloatArray], info: Mapping[str, Any]
    ) -> Demonstrations:
        """An episode as something to imitate, in this process's memory: its pictures in the policy's size, copied.

        Args:
            observations: T or more, with arrays or tensors as pictures.
            chunks: float32 (T, …, 7).
            info: Any of the episode.
        """
        size = self._policy.image_size
        seen = observations[: len(chunks)]
        pictures = {
            camera: torch.stack([small_picture(o[f"{camera}_image"], size) for o in seen]).cpu()
            for camera in self.cameras
        }
        return Demonstrations(
            pictures,
            torch.from_numpy(np.stack([o["state"] for o in seen]).astype(np.float32)),
            torch.full((len(chunks),), self._policy.task_index(info)),
            torch.arange(len(chunks)) * self.chunk_size,
            torch.from_numpy(np.stack(chunks).astype(np.float32)),
        )

    def choose(self, episodes: Sequence[Demonstrations]) -> None:
        """Adds episodes to what is imitated; which batches are drawn depends on their order."""
        self._chosen += episodes

    def learn(self, steps: int) -> float | None:
        """Imitates all that was chosen so far, by a fresh AdamW; returns the mean loss, None if nothing was chosen."""
        if not self._chosen:
            return None
        demos = Demonstrations.joined(self._chosen).to(self._device)
        optimizer = torch.optim.AdamW(
            self._policy.parameters(), lr=self._recipe.learning_rate, weight_decay=self._recipe.weight_decay
        )
        losses = []
        for _ in range(steps):
            rate = self._recipe.learning_rate
            losses.append(imitation_step(self._policy, optimizer, demos, self._recipe, self._step, rate))
            self._step += 1
        return float(torch.stack(losses).mean())

    def save(self, path: Path) -> None:
        """Writes the weights, and what was chosen since the last `save`, whole or not at all."""
        buffer = io.BytesIO()
        chosen = [vars(demos) for demos in self._chosen[self._fresh :]]
        torch.save({"policy": self._policy.state_dict(), "step": self._step, "chosen": chosen}, buffer)
        write_bytes(path, buffer.getvalue())
        self._fresh = len(self._chosen)

    def load(self, path: Path) -> None:
        """Goes on from a `save`; to be called with each of them in turn.

        Raises:
            ConfigError: It is another policy's, or too old.
        """
        state = torch.load(path, map_location="cpu", weights_only=True)
        load_weights(self._policy, state["policy"], path)
        self._step = state["step"]
        self._chosen += [Demonstrations(**demos) for demos in state["chosen"]]
        self._fresh = len(self._chosen)

    def save_policy(self, folder: Path) -> None:
        """Writes the policy for `clone:FOLDER`."""
        save_policy(self._policy, folder)


def _shifted(pictures: Tensor, rows: Tensor, shifts: Tensor) -> Tensor:
    """Chosen pictures, each moved; what comes in at an edge repeats the edge.

    Args:
        pictures: uint8 (N, H, W, 3).
        rows: int64 (B,), which ones.
        shifts: int64 (B, 2), down and right, pixels.

    Returns:
        uint8 (B, H, W, 3).
    """
    height, width = pictures.shape[1:3]
    y = torch.arange(height, device=pictures.device) - shifts[:, :1]
    x = torch.arange(width, device=pictures.device) - shifts[:, 1:]
    y, x = y.clamp(0, height - 1), x.clamp(0, width - 1)
    return pictures[rows[:, None, None], y[:, :, None], x[:, None, :]]
