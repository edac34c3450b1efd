"""Prompts and pictures as tensors on the training device: `FrameBank`, `PromptBook`, `TokenBatch`."""

__all__ = ["FrameBank", "PromptBook", "TokenBatch", "largest_picture"]

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlac_gym.critic.engines.base import EngineRequest
from vlac_gym.critic.engines.chat_prompts import PromptEncoder
from vlac_gym.critic.engines.frame_preparation import FramePreparer
from vlac_gym.critic.vlac.prompts import SYSTEM_PROMPT, done_prompt, pair_prompt
from vlac_gym.data.episodes import Episode
from vlac_gym.extras import needs
from vlac_gym.train_nano.recipe import TrainRecipe
from vlac_gym.train_nano.relighting import UNIFORMS_PER_LIGHT, lights_from_uniform, relight

with needs("Training nano", "vlac"):
    import torch

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_SAME_LIGHT_SHARE = 0.8
"""Of the samples of several frames; in the rest the light changes between them, which is no progress."""


@dataclass(frozen=True, eq=False)
class TokenBatch:
    """Prompts with their answers, padded on the right.

    Attributes:
        ids: int64 (B, T).
        mask: int64 (B, T), 1 at real tokens.
        answer_starts: int64 (B,), index of the first answer token.
        answers: int64 (B, 3), the answer's tokens; -1 beyond its end.
    """

    ids: torch.Tensor
    mask: torch.Tensor
    answer_starts: torch.Tensor
    answers: torch.Tensor


class PromptBook:
    """The encoded prompts of each task, the same that the inference engine writes.

    Args:
        encoder: The engine's prompt encoder.
        tokenizer: Its tokenizer.
        wordings: For each task the texts of its instruction, the usual one first; each is encoded once, here.
        device: Where batches go.
    """

    def __init__(
        self, encoder: PromptEncoder, tokenizer: Any, wordings: Sequence[Sequence[str]], device: torch.device
    ) -> None:
        blank = np.zeros((1, 1, 3), np.uint8)
        self._device = device
        self._done = [
            [self._encode(encoder, done_prompt(text), (blank,)) for text in texts] for texts in wordings
        ]
        self._pair = [
            [self._encode(encoder, pair_prompt(text), (blank, blank)) for text in texts] for texts in wordings
        ]
        self._pad = int(tokenizer.pad_token_id)
        token = tokenizer.convert_tokens_to_ids
        self._end, self._plus, self._minus = token("<|im_end|>"), token("+"), token("-")
        self.number_ids = torch.tensor([token(str(n)) for n in range(101)], device=device)
        self._number = [int(i) for i in self.number_ids]

    def done_batch(
        self,
        tasks: NDArray[np.int64],
        answers: NDArray[np.bool_],
        wordings: NDArray[np.int64] | None = None,
    ) -> TokenBatch:
        """Done prompts with the answers 0 and 1; `wordings` are the indices of each task's texts, else the first."""
        replies = [[self._number[int(answer)], self._end] for answer in answers]
        return self._batch(_chosen(self._done, tasks, wordings), replies)

    def pair_batch(
        self,
        tasks: NDArray[np.int64],
        percent: NDArray[np.int64],
        wordings: NDArray[np.int64] | None = None,
    ) -> TokenBatch:
        """Pair prompts with the answers `0`, or a sign and a number; `wordings` as in `done_batch`."""
        replies = [self._pair_reply(int(p)) for p in percent]
        return self._batch(_chosen(self._pair, tasks, wordings), replies)

    def expected_percent(self, logits: torch.Tensor) -> torch.Tensor:
        """The likeliest reply's number: its sign times the mean of the number's distribution, in percent.

        Args:
            logits: float32 (B, 3, vocabulary) from `reply_logits`; the number was conditioned on the true sign.
        """
        first = logits[:, 0]
        signs = torch.stack([first[:, self._number[0]], first[:, self._plus], first[:, self._minus]], dim=1)
        scale = torch.arange(101, device=logits.device, dtype=torch.float32)
        mean = (logits[:, 1, self.number_ids].softmax(dim=1) * scale).sum(dim=1)
        return torch.tensor([0.0, 1.0, -1.0], device=logits.device)[signs.argmax(dim=1)] * mean

    def _pair_reply(self, percent: int) -> list[int]:
        if percent == 0:
            return [self._number[0], self._end]
        return [self._plus if percent > 0 else self._minus, self._number[abs(percent)], self._end]

    def _batch(self, prompts: list[NDArray[np.int64]], replies: list[list[int]]) -> TokenBatch:
        length = max(len(prompt) + len(reply) for prompt, reply in zip(prompts, replies))
        ids = np.full((len(prompts), length), self._pad, np.int64)
        mask = np.zeros_like(ids)
        answers = np.full((len(prompts), 3), -1, np.int64)
        for i, (prompt, reply) in enumerate(zip(prompts, replies)):
            ids[i, : len(prompt)] = prompt
            ids[i, len(prompt) : len(prompt) + len(reply)] = reply
            mask[i, : len(prompt) + len(reply)] = 1
            answers[i, : len(reply)] = reply
        starts = np.array([len(prompt) for prompt in prompts])
        return TokenBatch(*(torch.from_numpy(a).to(self._device) for a in (ids, mask, starts, answers)))

    @staticmethod
    def _encode(encoder: PromptEncoder, prompt: str, frames: tuple[Any, ...]) -> NDArray[np.int64]:
        return encoder.encode(EngineRequest(SYSTEM_PROMPT, prompt, frames)).ids


class FrameBank:
    """All frames of a data set, decoded once and kept on the device; hands out prepared, augmented pictures.

    Args:
        episodes: Episodes whose first camera is used; frames in order.
        frame_size: Height and width in which frames are kept; those of another size are resized to it.
        image_size: Side of the model's pictures.
        recipe: Augmentation.
        device: Where the frames stay: about 0.2 MB per 256 x 256 frame.
        dtype: Of the pictures handed out.
    """

    def __init__(
        self,
        episodes: Sequence[Episode],
        frame_size: tuple[int, int],
        image_size: int,
        recipe: TrainRecipe,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        with ThreadPoolExecutor() as threads:
            decoded = list(threads.map(lambda e: np.stack(list(e.view())), episodes))
        self._frames = torch.cat(
            [_resized(torch.from_numpy(frames).to(device), frame_size) for frames in decoded]
        )
        self._recipe = recipe
        self._generator = torch.Generator(device=device).manual_seed(recipe.seed)
        self._preparer = FramePreparer(
            image_size, IMAGENET_MEAN, IMAGENET_STD, mode="device", device=device, dtype=dtype
        )

    def __len__(self) -> int:
        return len(self._frames)

    def state(self) -> torch.Tensor:
        """Where the augmentation's draws stand."""
        return self._generator.get_state()

    def restore(self, state: torch.Tensor) -> None:
        """Goes on from a `state`."""
        self._generator.set_state(state.cpu())

    def pictures(self, rows: NDArray[np.int64], *, augment: bool) -> torch.Tensor:
        """Pictures (N, 3, image_size, image_size), normalised as the engine does."""
        stack = self._frames[torch.from_numpy(rows).to(self._frames.device)]
        if augment:
            stack = self._augment(stack)
        return self._preparer.resize(stack)

    def same_augmentation(self, rows: Sequence[NDArray[np.int64]]) -> list[torch.Tensor]:
        """Pictures of several frames each, shifted and lit alike per sample: one camera saw them all.

        Only the change of light (`TrainRecipe.max_relight`) differs between the frames of a few samples.
        """
        count, frames = len(rows[0]), len(rows)
        stack = torch.stack([self._frames[torch.from_numpy(r).to(self._frames.device)] for r in rows], dim=1)
        wide = stack.permute(0, 2, 3, 1, 4).reshape(count, *stack.shape[2:4], frames * 3)
        shifted = self._augment(wide).reshape(count, *stack.shape[2:4], frames, 3)
        return [self._preparer.resize(shifted[:, :, :, i].contiguous()) for i in range(frames)]

    def _augment(self, stack: torch.Tensor) -> torch.Tensor:
        """Random shift with repeated edges, light, brightness and contrast; uint8 (N, H, W, 3 frames) both ways."""
        count, height, width, channels = stack.shape
        shift, jitter = self._recipe.max_shift, self._recipe.max_jitter
        offsets = (self._draw(2, count, 1) * (2 * shift + 1)).long() - shift
        rows = (torch.arange(height, device=stack.device) + offsets[0]).clamp(0, height - 1)
        columns = (torch.arange(width, device=stack.device) + offsets[1]).clamp(0, width - 1)
        moved = stack.gather(1, rows[:, :, None, None].expand(-1, -1, width, channels))
        moved = moved.gather(2, columns[:, None, :, None].expand(-1, height, -1, channels)).float()
        if self._recipe.max_relight:
            moved = self._relight(moved)
        gain, bias = 1 + jitter * (2 * self._draw(2, count, 1, 1, 1) - 1)
        lit: torch.Tensor = (moved * gain + 128 * (bias - 1)).clamp_(0, 255).to(torch.uint8)
        return lit

    def _relight(self, stack: torch.Tensor) -> torch.Tensor:
        """Random light, mostly the same for the frames of a sample, which lie one after another as channels."""
        count, frames = len(stack), stack.shape[3] // 3
        uniform = self._draw(frames, count, UNIFORMS_PER_LIGHT)
        is_same = self._draw(count, 1) < _SAME_LIGHT_SHARE
        uniform = torch.where(is_same, uniform[:1], uniform)
        return torch.cat(
            [
                relight(picture, lights_from_uniform(own, self._recipe.max_relight))
                for picture, own in zip(torch.split(stack, 3, dim=3), uniform)
            ],
            dim=3,
        )

    def _draw(self, *shape: int) -> torch.Tensor:
        return torch.rand(shape, device=self._frames.device, generator=self._generator)


def largest_picture(episodes: Sequence[Episode]) -> tuple[int, int]:
    """Height and width of the largest pictures of one or more episodes: nothing is lost in that size."""
    sizes = {(height, width) for height, width, _ in (episode.view()[0].shape for episode in episodes)}
    return max(sizes, key=lambda size: (size[0] * size[1], size))


def _resized(frames: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Frames uint8 (T, H, W, 3) of the size (H, W)."""
    if tuple(frames.shape[1:3]) == size:
        return frames
    planes = frames.permute(0, 3, 1, 2).float()
    planes = torch.nn.functional.interpolate(planes, size, mode="bicubic", antialias=True)
    return planes.round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def _chosen(
    prompts: list[list[NDArray[np.int64]]], tasks: NDArray[np.int64], wordings: NDArray[np.int64] | None
) -> list[NDArray[np.int64]]:
    if wordings is None:
        return [prompts[task][0] for task in tasks]
    return [prompts[task][wording] for task, wording in zip(tasks, wordings)]
