"""A digest of the files of a checkpoint that determine a model's answers: `checkpoint_digest`."""

__all__ = ["checkpoint_digest"]

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vlac_gym.critic.knowledge import KNOWLEDGE_FILE

_SUFFIXES = (".safetensors", ".json", ".jinja", ".txt", ".model")
"""Weights, config, tokenizer, picture preparation, chat template."""

_LEFT_OUT = (KNOWLEDGE_FILE, "training.json", "conversion.json", "merge_metadata.json")
"""What is said about a model, and not part of it: the last two hold versions of this package, times and paths."""

_SEGMENT_BYTES = 64 * 2**20
"""Segments are digested side by side: 4 GB take a second on 8 cores instead of five on one."""


def checkpoint_digest(directory: str | Path) -> str:
    """16 hex digits of the weights, config, tokenizer and picture preparation in a checkpoint directory.

    The folder's own name, and files about the model rather than of it, have no part in it.

    Raises:
        OSError: A file can't be read.
    """
    files = sorted(
        file
        for file in Path(directory).iterdir()
        if file.suffix in _SUFFIXES and file.name not in _LEFT_OUT and file.is_file()
    )
    total = hashlib.sha256()
    with ThreadPoolExecutor() as threads:
        for file in files:
            total.update(f"{file.name}\n{file.stat().st_size}\n".encode())
            for part in threads.map(_digest_segment, *zip(*_segments(file))):
                total.update(part)
    return total.hexdigest()[:16]


def _segments(file: Path) -> Iterator[tuple[Path, int]]:
    return ((file, start) for start in range(0, max(1, file.stat().st_size), _SEGMENT_BYTES))


def _digest_segment(file: Path, start: int) -> bytes:
    with file.open("rb") as opened:
        opened.seek(start)
        return hashlib.sha256(opened.read(_SEGMENT_BYTES)).digest()
