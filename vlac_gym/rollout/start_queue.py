"""Which episode an env plays next: `StartQueue`, `may_play`."""

__all__ = ["StartQueue", "may_play"]

from collections import deque
from collections.abc import Iterable

from vlac_gym.rollout.playing import RunningEpisode


class StartQueue:
    """Hands out episodes so that an env rarely changes its task, which costs it a compilation.

    Args:
        episodes: What is to be played, in the order of their numbers.
    """

    def __init__(self, episodes: Iterable[RunningEpisode]) -> None:
        self._left: dict[tuple[object, object], deque[RunningEpisode]] = {}  # by task and envs
        for episode in episodes:
            kind = episode.start.task_id, episode.start.envs
            self._left.setdefault(kind, deque()).append(episode)

    def next(self, env_index: int, before: RunningEpisode | None = None) -> RunningEpisode | None:
        """The next episode that this env may play, of the task that it played before if there is one, else of the task
        with most left; None if there is none.
        """
        playable = [left for left in self._left.values() if left and may_play(env_index, left[0])]
        if not playable:
            return None

        def rank(left: deque[RunningEpisode]) -> tuple[bool, int, int]:
            changes_task = before is not None and left[0].start.task_id != before.start.task_id
            return changes_task, -len(left), left[0].index

        return min(playable, key=rank).popleft()


def may_play(env_index: int, episode: RunningEpisode) -> bool:
    """Whether the episode's start leaves it to this env."""
    return episode.start.envs is None or env_index in episode.start.envs
