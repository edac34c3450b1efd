"""Features of frames, encoded once and kept: `FrameFeatures`."""

__all__ = ["FrameFeatures", "StagedFrames"]

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass

from vlac_gym.critic.engines.batches import split_evenly
from vlac_gym.critic.engines.byte_bounded_cache import ByteBoundedCache
from vlac_gym.critic.engines.frame_preparation import FramePreparer, Staged
from vlac_gym.extras import needs
from vlac_gym.types import Frame

with needs("The transformers engine", "vlac"):
    import torch


@dataclass(frozen=True, eq=False)
class StagedFrames:
    """Frames on their way to the device: digests, and the host's work in a thread."""

    digests: list[bytes]
    staged: "Future[Staged]"


class FrameFeatures:
    """Encodes frames that are not in the cache, in batches of even size.

    Args:
        encode: (N, 3, side, side) to (N, image tokens, width).
        preparer: Makes the encoder's input.
        max_bytes: Bound of the cache.
        batch_size: Most frames per forward.
    """

    def __init__(
        self,
        encode: Callable[[torch.Tensor], torch.Tensor],
        preparer: FramePreparer,
        *,
        max_bytes: int,
        batch_size: int,
    ) -> None:
        self._encode_pictures = encode
        self.cache: ByteBoundedCache[bytes, torch.Tensor] = ByteBoundedCache(max_bytes)
        self.frames_encoded = 0
        self.frames_from_cache = 0
        self._preparer = preparer
        self._batch_size = batch_size

    def stage(self, frames: Mapping[bytes, Frame], coming: set[bytes]) -> list[StagedFrames]:
        """Starts the host's work on frames that are neither cached nor in `coming`, which grows by them."""
        fresh = [digest for digest in frames if digest not in self.cache and digest not in coming]
        coming.update(fresh)
        return [
            StagedFrames(run, self._preparer.begin([frames[digest] for digest in run]))
            for run in ([fresh[i] for i in span] for span in split_evenly(len(fresh), self._batch_size))
        ]

    def collect(self, frames: Mapping[bytes, Frame], staged: list[StagedFrames]) -> dict[bytes, torch.Tensor]:
        """Features (image tokens, width) of every frame, encoding what was staged or has left the cache."""
        found: dict[bytes, torch.Tensor] = {}
        for run in staged:
            found |= self._encode(run)
        for digest in frames.keys() - found.keys():
            features = self.cache.get(digest)
            if features is not None:
                found[digest] = features
                self.frames_from_cache += 1
        lost = {digest: frames[digest] for digest in frames if digest not in found}
        for run in self.stage(lost, set()):
            found |= self._encode(run)
        return found

    def _encode(self, run: StagedFrames) -> dict[bytes, torch.Tensor]:
        encoded = self._encode_pictures(self._preparer.finish(run.staged))
        self.frames_encoded += len(run.digests)
        # clones, because a view would keep the whole batch alive after its neighbours left the cache
        features = {digest: row.clone() for digest, row in zip(run.digests, encoded)}
        for digest, row in features.items():
            self.cache.put(digest, row, row.numel() * row.element_size())
        return features
