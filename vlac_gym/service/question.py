"""A critic's question on the client's side: frames by digest, encoded when needed: `Question`."""

__all__ = ["Question", "progress_question", "success_question", "value_question"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain

import numpy as np

from vlac_gym.critic.base import check_frames, check_same_length, check_tasks, frame_digest
from vlac_gym.errors import ConfigError
from vlac_gym.service.client_config import Encoding
from vlac_gym.service.frame_codec import encode_frame, jpeg_digest
from vlac_gym.service.protocol import (
    EncodedFrame,
    Operation,
    Pixels,
    ProgressRequest,
    Request,
    SuccessProbRequest,
    ValueRequest,
)
from vlac_gym.types import FloatArray, Frame


@dataclass(frozen=True, eq=False)
class Question:
    """One call of the critic, ready to be sent.

    Attributes:
        operation: Which call.
        frames, after: Digest of each frame (before and after, for `progress`; all episodes, for `value`).
        lengths: Frames of each episode, for `value`.
        tasks: One text per frame, pair or episode.
        references: Digests of the reference frames, or None.
        pictures: Digest -> frame, each distinct frame once.
        encoding, jpeg_quality: How frames are encoded.
    """

    operation: Operation
    frames: tuple[bytes, ...]
    tasks: tuple[str, ...]
    pictures: Mapping[bytes, Frame]
    after: tuple[bytes, ...] = ()
    references: tuple[bytes, ...] | None = None
    lengths: tuple[int, ...] = ()
    encoding: Encoding = "raw"
    jpeg_quality: int = 95

    @property
    def items(self) -> int:
        """How many numbers the answer has."""
        return len(self.frames)

    @property
    def digests(self) -> tuple[bytes, ...]:
        """Distinct digests, in order of first use."""
        return tuple(dict.fromkeys((*self.frames, *self.after, *(self.references or ()))))

    def encoded(self, digest: bytes) -> EncodedFrame:
        """One frame as it goes over the wire."""
        return encode_frame(self.pictures[digest], self.encoding, self.jpeg_quality)

    def split(self, max_frames: int) -> list["Question"]:
        """Parts with at most `max_frames` distinct frames each; usually the question itself.

        Raises:
            ConfigError: It can't be split: the values of an episode depend on each other.
        """
        if len(self.digests) <= max_frames and self.items <= max_frames:
            return [self]
        room = max_frames - len(self.references or ())
        size = room // (2 if self.operation == "progress" else 1)
        longest = max(self.lengths, default=1)
        if size < longest:
            raise ConfigError(
                f"Expected at most {size} frames in one {self.operation} question, by the server's limit, "
                f"got {longest}. Judge fewer frames, e.g. with a larger value_stride."
            )
        if self.operation == "value":
            return self._split_episodes(size)
        return [self._part(slice(i, i + size), slice(i, i + size)) for i in range(0, self.items, size)]

    def _split_episodes(self, size: int) -> list["Question"]:
        parts: list[Question] = []
        first, start, end = 0, 0, 0
        for i, length in enumerate(self.lengths):
            if end + length - start > size:
                parts.append(self._part(slice(start, end), slice(first, i)))
                first, start = i, end
            end += length
        parts.append(self._part(slice(start, end), slice(first, len(self.lengths))))
        return parts

    def cut(self, answers: FloatArray) -> list[FloatArray]:
        """The answers to a `value` question, episode by episode."""
        return np.split(answers, list(accumulate(self.lengths))[:-1]) if self.lengths else []

    def to_request(self, encoded: Mapping[bytes, EncodedFrame], deadline_ms: int) -> Request:
        """The request that attaches the encoded frames and only names the others."""
        digests = self.digests
        place = {digest: i for i, digest in enumerate(digests)}

        def places(named: Sequence[bytes]) -> tuple[int, ...]:
            return tuple(place[digest] for digest in named)

        pixels = Pixels.of({place[digest]: frame for digest, frame in encoded.items()})
        frames = places(self.frames)
        if self.operation == "success_prob":
            return SuccessProbRequest(deadline_ms, digests, pixels, frames, self.tasks)
        references = None if self.references is None else places(self.references)
        if self.operation == "progress":
            after = places(self.after)
            return ProgressRequest(deadline_ms, digests, pixels, frames, after, self.tasks, references)
        ends = accumulate(self.lengths)
        episodes = tuple(frames[end - n : end] for end, n in zip(ends, self.lengths, strict=True))
        return ValueRequest(deadline_ms, digests, pixels, episodes, self.tasks, references)

    def _part(self, frames: slice, tasks: slice) -> "Question":
        return replace(
            self,
            frames=self.frames[frames],
            after=self.after[frames],
            tasks=self.tasks[tasks],
            lengths=self.lengths[tasks],
        )


class _FramesByDigest:
    """Collects frames by digest."""

    def __init__(self, encoding: Encoding, jpeg_quality: int) -> None:
        self.pictures: dict[bytes, Frame] = {}
        self._encoding: Encoding = encoding
        self._jpeg_quality = jpeg_quality

    def add(self, frames: Sequence[Frame], where: str) -> tuple[bytes, ...]:
        check_frames(frames, where)
        digests = []
        for frame in frames:
            if self._encoding == "jpeg":
                digest = jpeg_digest(encode_frame(frame, "jpeg", self._jpeg_quality).data)
            else:
                digest = frame_digest(frame)
            self.pictures.setdefault(digest, frame)
            digests.append(digest)
        return tuple(digests)


def success_question(
    frames: Sequence[Frame], tasks: Sequence[str], encoding: Encoding, jpeg_quality: int
) -> Question:
    """`Critic.success_prob` as a question.

    Raises:
        ConfigError: As `Critic.success_prob`.
    """
    check_tasks(tasks)
    check_same_length(frames=frames, tasks=tasks)
    known = _FramesByDigest(encoding, jpeg_quality)
    digests = known.add(frames, "frames")
    return Question(
        "success_prob", digests, tuple(tasks), known.pictures, encoding=encoding, jpeg_quality=jpeg_quality
    )


def progress_question(
    before: Sequence[Frame],
    after: Sequence[Frame],
    tasks: Sequence[str],
    references: Sequence[Frame] | None,
    encoding: Encoding,
    jpeg_quality: int,
) -> Question:
    """`Critic.progress` as a question.

    Raises:
        ConfigError: As `Critic.progress`.
    """
    check_tasks(tasks)
    check_same_length(before=before, after=after, tasks=tasks)
    known = _FramesByDigest(encoding, jpeg_quality)
    return Question(
        "progress",
        known.add(before, "before"),
        tuple(tasks),
        known.pictures,
        after=known.add(after, "after"),
        references=None if references is None else known.add(references, "references"),
        encoding=encoding,
        jpeg_quality=jpeg_quality,
    )


def value_question(
    episodes: Sequence[Sequence[Frame]],
    tasks: Sequence[str],
    references: Sequence[Frame] | None,
    encoding: Encoding,
    jpeg_quality: int,
) -> Question:
    """`vlac_gym.critic.base.BaseCritic.values` as a question.

    Raises:
        ConfigError: As `Critic.value`.
    """
    check_tasks(tasks)
    check_same_length(episodes=episodes, tasks=tasks)
    known = _FramesByDigest(encoding, jpeg_quality)
    digests = [known.add(frames, f"episodes[{i}]") for i, frames in enumerate(episodes)]
    return Question(
        "value",
        tuple(chain.from_iterable(digests)),
        tuple(tasks),
        known.pictures,
        references=None if references is None else known.add(references, "references"),
        lengths=tuple(map(len, digests)),
        encoding=encoding,
        jpeg_quality=jpeg_quality,
    )
