"""Recorded episodes: their files, how to collect them and what to export them to.

`episodes` (file format), `dataset` (a folder of them), `recorder`, `collect`, `export_ms_swift`, `export_lerobot`.
"""

__all__ = ["Episode", "EpisodeDataset", "EpisodeEntry", "EpisodeMeta", "read_episode", "write_episode"]

from vlac_gym.data.dataset import EpisodeDataset, EpisodeEntry
from vlac_gym.data.episodes import Episode, EpisodeMeta, read_episode, write_episode
