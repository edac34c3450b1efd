"""A critic's question on the client's side: frames by digest, encoded when needed: `Question`."""

__all__ = ["Question", "progress_question", "success_question", "value_question"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vlac_gym.critic.base import check_frames, check_same_length, check_tasks, frame_digest
from vlac_gym.errors import ConfigError
from vlac_gym.service.frame_codec import encode_frame, jpeg_digest
from vlac_gym.service.protocol import EncodedFrame, Encoding, JudgeRequest, Operation
from vlac_gym.types import Frame


@dataclass(frozen=True, eq=False)
class Question:
    """One call of the critic, ready to be sent.

    Attributes:
        operation: Which call.
        frames, after: Digest of each frame (before and after, for `progress`).
        tasks: One text per item; one for `value`.
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
        if self.operation == "value" or size < 1:
            raise ConfigError(
                f"Expected at most {max_frames} frames in one {self.operation} question, which is the server's "
                f"limit, got {self.items}. Judge fewer frames, e.g. with a larger value_stride."
            )
        return [self._part(start, start + size) for start in range(0, self.items, size)]

    def to_request(self, encoded: Mapping[bytes, EncodedFrame], deadline_ms: int) -> JudgeRequest:
        """The request that attaches the encoded frames and only names the others."""
        digests = self.digests
        place = {digest: i for i, digest in enumerate(digests)}
        return JudgeRequest(
            operation=self.operation,
            digests=digests,
            frames=tuple(place[d] for d in self.frames),
            after=tuple(place[d] for d in self.after),
            tasks=self.tasks,
            references=None if self.references is None else tuple(place[d] for d in self.references),
            pixels={place[digest]: frame for digest, frame in encoded.items()},
            deadline_ms=deadline_ms,
        )

    def _part(self, start: int, stop: int) -> "Question":
        return Question(
            self.operation,
            self.frames[start:stop],
            self.tasks[start:stop],
            self.pictures,
            self.after[start:stop],
            self.references,
            self.encoding,
            self.jpeg_quality,
        )


class _Album:
    """Collects frames by digest."""

    def __init__(self, encoding: Encoding, jpeg_quality: int) -> None:
        self.pictures: dict[bytes, Frame] = {}
        self._encoding: Encoding = encoding
        self._jpeg_quality = jpeg_quality

    def add(self, frames: Sequence[Frame], where: str) -> tuple[bytes, ...]:
        check_frames(frames, where)
        digests = []
        for frame in frames:
            digest = frame_digest(frame)
            if self._encoding == "jpeg":
                digest = jpeg_digest(encode_frame(frame, "jpeg", self._jpeg_quality).data)
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
    album = _Album(encoding, jpeg_quality)
    digests = album.add(frames, "frames")
    return Question(
        "success_prob", digests, tuple(tasks), album.pictures, encoding=encoding, jpeg_quality=jpeg_quality
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
    album = _Album(encoding, jpeg_quality)
    return Question(
        "progress",
        album.add(before, "before"),
        tuple(tasks),
        album.pictures,
        after=album.add(after, "after"),
        references=None if references is None else album.add(references, "references"),
        encoding=encoding,
        jpeg_quality=jpeg_quality,
    )


def value_question(
    frames: Sequence[Frame],
    task: str,
    references: Sequence[Frame] | None,
    encoding: Encoding,
    jpeg_quality: int,
) -> Question:
    """`Critic.value` as a question.

    Raises:
        ConfigError: As `Critic.value`.
    """
    check_tasks([task])
    album = _Album(encoding, jpeg_quality)
    return Question(
        "value",
        album.add(frames, "frames"),
        (task,),
        album.pictures,
        references=None if references is None else album.add(references, "references"),
        encoding=encoding,
        jpeg_quality=jpeg_quality,
    )
