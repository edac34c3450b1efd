"""Which recorded episodes to imitate, and what to learn from them: `choose_demonstrations`, `Demonstrations`."""

__all__ = ["Demonstrations", "choose_demonstrations", "load_demonstrations", "small_picture"]

import hashlib
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vlac_gym.clone.policy import ACTION_SIZE, STATE_SIZE
from vlac_gym.clone.recipe import CloneRecipe
from vlac_gym.data.dataset import EpisodeDataset, EpisodeEntry
from vlac_gym.data.episodes import Episode
from vlac_gym.data.export_lerobot import demonstrations
from vlac_gym.errors import ConfigError
from vlac_gym.extras import needs
from vlac_gym.specs.ids import parse_ids
from vlac_gym.types import FloatArray

with needs("Cloning", "vlac"):
    import torch
    from torch import Tensor
    from torch.nn import functional


@dataclass(frozen=True)
class Demonstrations:
    """Every decision of some episodes: N of them, up to each episode's first success.

    Attributes:
        pictures: Camera -> uint8 (N, image_size, image_size, 3), averaged down as the policy does.
        states: float32 (N, 8).
        tasks: int64 (N,), indices into the policy's tasks.
        env_steps: int64 (N,), how old the episode was.
        chunks: float32 (N, T, 7), the labels; the arm stands still after an episode's end.
    """

    pictures: dict[str, Tensor]
    states: Tensor
    tasks: Tensor
    env_steps: Tensor
    chunks: Tensor

    _ROWS: ClassVar = ("states", "tasks", "env_steps", "chunks")

    def __len__(self) -> int:
        return len(self.states)

    @classmethod
    def joined(cls, parts: Sequence["Demonstrations"]) -> "Demonstrations":
        """Several, one after the other; all of the same cameras."""
        return cls(
            {camera: torch.cat([part.pictures[camera] for part in parts]) for camera in parts[0].pictures},
            *(torch.cat([getattr(part, name) for part in parts]) for name in cls._ROWS),
        )

    def to(self, device: torch.device) -> "Demonstrations":
        """The same on a device."""
        return Demonstrations(
            {camera: pictures.to(device) for camera, pictures in self.pictures.items()},
            *(getattr(self, name).to(device) for name in self._ROWS),
        )


def choose_demonstrations(
    dataset: EpisodeDataset, recipe: CloneRecipe
) -> tuple[EpisodeDataset, EpisodeDataset | None]:
    """The episodes to learn from, `recipe.demos_per_task` of each task, and the held-out ones, if there are any.

    Raises:
        ConfigError: Too few episodes of a task, no episode left, or not a frame of every step.
    """
    usable = _with_every_frame(dataset) if recipe.any_episode else demonstrations(dataset)
    rest, held_out = _split(usable, recipe.held_out_init_states)
    if recipe.demos_per_task is None:
        return rest, held_out
    chosen: set[str] = set()
    for suite, task_id in usable.tasks():
        name = f"{suite}:{task_id}"
        entries = [entry for entry in rest.entries if _task(entry) == name]
        if len(entries) < recipe.demos_per_task:
            raise ConfigError(
                f"Expected {recipe.demos_per_task} demonstrations of task {name} in {dataset.root} beside the held-out "
                f"initial states, got {len(entries)}. Collect more, or ask for fewer with --demos-per-task."
            )
        order = np.random.default_rng((recipe.seed, zlib.crc32(name.encode()))).permutation(len(entries))
        chosen.update(entries[i].file for i in order[: recipe.demos_per_task])
    return rest.select(lambda entry: entry.file in chosen), held_out


def load_demonstrations(
    dataset: EpisodeDataset,
    recipe: CloneRecipe,
    tasks: Sequence[str],
    *,
    limit: int | None = None,
    on_episode: Callable[[], None] = lambda: None,
) -> tuple[Demonstrations, str]:
    """Reads the decisions of a dataset.

    Args:
        dataset: Episodes with a frame of every step.
        recipe: Cameras, picture size and chunk size.
        tasks: Names of the tasks, as ``suite:id``.
        limit: Most decisions, spread evenly over all.
        on_episode: Called after each episode.

    Returns:
        The decisions, and the SHA-256 of the episode files' names and contents.

    Raises:
        ConfigError: An episode lacks a camera or has states or actions of another size, or pictures are smaller than
            the policy's.
    """
    counts = [_decisions(entry) for entry in dataset.entries]
    total = sum(counts)
    keep = (
        np.arange(total) if limit is None or total <= limit else np.linspace(0, total - 1, limit).astype(int)
    )
    digest = hashlib.sha256()
    parts: list[Demonstrations] = []
    first = 0
    for index, (entry, count) in enumerate(zip(dataset.entries, counts, strict=True)):
        path = dataset.root / "episodes" / entry.file
        digest.update(entry.file.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
        steps = keep[(keep >= first) & (keep < first + count)] - first
        if steps.size:
            episode = dataset[index]
            _check(episode, recipe, path)
            parts.append(_decide(episode, steps, recipe, tasks.index(_task(entry))))
        first += count
        on_episode()
    return Demonstrations.joined(parts), digest.hexdigest()


def small_picture(picture: Any, size: int) -> Tensor:
    """A picture uint8 (H, W, 3) averaged down as the policy does: uint8 (size, size, 3), rounded.

    An array or a tensor, which stays on its device.
    """
    pixels = torch.as_tensor(picture).permute(2, 0, 1).float()
    return functional.adaptive_avg_pool2d(pixels, size).round().to(torch.uint8).permute(1, 2, 0)


def _task(entry: EpisodeEntry) -> str:
    return f"{entry.meta.task_suite}:{entry.meta.task_id}"


def _decisions(entry: EpisodeEntry) -> int:
    return entry.num_steps if entry.first_success_step is None else entry.first_success_step


def _with_every_frame(dataset: EpisodeDataset) -> EpisodeDataset:
    chosen = dataset.select(lambda entry: _decisions(entry) > 0)
    strides = sorted({entry.meta.frame_stride_steps for entry in chosen.entries})
    if strides != [1]:
        raise ConfigError(
            f"Cloning needs a frame of every step, {dataset.root} has one of every {strides} steps. Collect the "
            "episodes with --frame-stride-steps 1."
        )
    return chosen


def _split(dataset: EpisodeDataset, held_out: str) -> tuple[EpisodeDataset, EpisodeDataset | None]:
    if held_out == "none":
        return dataset, None
    present = sorted({entry.meta.init_state_id for entry in dataset.entries})
    if held_out == "last-fifth":
        chosen = present[-max(1, len(present) // 5) :]
        if len(present) < 2:
            raise ConfigError(
                f"Expected two or more initial states in {dataset.root}, one of them to hold out, got {present}. "
                "Collect more, or write --held-out-init-states none."
            )
    else:
        chosen = parse_ids(held_out, 1_000_000, "held-out initial states")
    return dataset.split_by_init_state(chosen)


def _check(episode: Episode, recipe: CloneRecipe, path: Path) -> None:
    missing = [camera for camera in recipe.cameras if camera not in episode.frames]
    if missing:
        raise ConfigError(
            f"Expected the views {', '.join(recipe.cameras)} in {path}, got {', '.join(episode.frames)}. Collect with "
            f"--cameras {' '.join(recipe.cameras)}, or clone with --cameras {' '.join(episode.frames)}."
        )
    shapes = episode.states.shape[1:], episode.actions.shape[1:]
    if shapes != ((STATE_SIZE,), (ACTION_SIZE,)):
        raise ConfigError(
            f"Expected states of {STATE_SIZE} and actions of {ACTION_SIZE} numbers in {path}, got {shapes[0]} and "
            f"{shapes[1]}."
        )
    for camera in recipe.cameras:
        height, width = episode.frames[camera][0].shape[:2]
        if min(height, width) < recipe.image_size:
            raise ConfigError(
                f"Expected pictures of {recipe.image_size} pixels or more in {path}, got {height} x {width} of camera "
                f"{camera}. Write --image-size {min(height, width)}, or collect larger ones."
            )


def _decide(episode: Episode, steps: NDArray[np.int64], recipe: CloneRecipe, task: int) -> Demonstrations:
    labels = _chunks(episode.label_actions, recipe.chunk_size)[steps]
    return Demonstrations(
        {camera: _pictures(episode, camera, steps, recipe.image_size) for camera in recipe.cameras},
        torch.from_numpy(np.array(episode.states[steps], np.float32)),
        torch.full((len(steps),), task),
        torch.from_numpy(steps),
        torch.from_numpy(labels),
    )


def _chunks(actions: FloatArray, size: int) -> FloatArray:
    """(T, 7) to (T, size, 7): the actions from each step on; after the end no motion, and the gripper as it was."""
    still = np.zeros_like(actions[-1])
    still[-1] = actions[-1, -1]
    longer = np.concatenate([actions, np.tile(still, (size - 1, 1))]).astype(np.float32)
    chunks: FloatArray = longer[np.arange(len(actions))[:, None] + np.arange(size)]
    return chunks


def _pictures(episode: Episode, camera: str, steps: NDArray[np.int64], size: int) -> Tensor:
    """uint8 (N, size, size, 3), rounded."""
    frames = episode.view(camera)
    return torch.stack([small_picture(frames[int(step)], size) for step in steps])
