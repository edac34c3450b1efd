"""Critics of one's own: `own_critics:closing`, which counts how often it is closed, `tiring` and `losing`."""

import numpy as np

from vlac_gym.critic.scripted import ScriptedCritic
from vlac_gym.errors import CriticConnectionError

closed = 0


class _Closing(ScriptedCritic):
    def close(self) -> None:
        global closed
        closed += 1


def closing() -> ScriptedCritic:
    """Says done to everything."""
    return _Closing(success_probs=[1.0], repeat=True)


class _Tiring(ScriptedCritic):
    def __init__(self, answers: int) -> None:
        super().__init__(success_probs=[0.1], repeat=True)
        self._left = answers

    def success_prob(self, frames, tasks):
        self._left -= len(frames)
        if self._left < 0:
            raise CriticConnectionError("gone")
        return super().success_prob(frames, tasks)


def tiring(answers: int) -> ScriptedCritic:
    """Finds nothing done, and is gone after so many answers."""
    return _Tiring(answers)


class _Losing(ScriptedCritic):
    def __init__(self, words: str) -> None:
        super().__init__(success_probs=[0.1], values=[[0.0, 0.5]], repeat=True)
        self._words = words

    def success_prob(self, frames, tasks):
        if any(self._words in task for task in tasks):
            raise CriticConnectionError("gone")
        return super().success_prob(frames, tasks)

    def value(self, frames, task, references=None):
        return np.linspace(0.0, 0.5, len(frames), dtype=np.float32)


def losing(words: str) -> ScriptedCritic:
    """Nothing is ever done and every value ends at 0.5; a question about a task with these words has no answer."""
    return _Losing(words.replace("_", " "))
