"""Which tasks to play next; `ray_actor` runs the manager in a Ray actor. numpy only."""

__all__ = [
    "Assignment",
    "Curriculum",
    "CurriculumConfig",
    "CurriculumManager",
    "EpisodeResult",
    "RESULT_COUNTS",
    "sampling_probabilities",
]

from vlac_gym.curriculum.curriculum import (
    RESULT_COUNTS,
    Assignment,
    Curriculum,
    CurriculumConfig,
    CurriculumManager,
    EpisodeResult,
    sampling_probabilities,
)
