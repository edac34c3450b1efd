"""Critics inside others: `AROUND`, ways to put one around another, and `make`, which a spec can name."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vlac_gym.critic import CriticFailurePolicy, CriticWrapper, make_critic
from vlac_gym.critic.base import Critic
from vlac_gym.critic.failover import FailoverCritic
from vlac_gym.critic.recorded import RecordedCritic


class Listening:
    """A user's critic around another: the five methods and nothing else."""

    def __init__(self, inner: Critic) -> None:
        self.inner = inner

    def success_prob(self, frames: Any, tasks: Any) -> Any:
        return self.inner.success_prob(frames, tasks)

    def progress(self, before: Any, after: Any, tasks: Any, references: Any = None) -> Any:
        return self.inner.progress(before, after, tasks, references)

    def value(self, frames: Any, task: str, references: Any = None) -> Any:
        return self.inner.value(frames, task, references)

    def describe(self) -> Any:
        return self.inner.describe()

    def close(self) -> None:
        self.inner.close()


def _recorded(inner: Critic) -> Critic:
    return RecordedCritic(inner, Path(tempfile.mkdtemp()) / "critic.jsonl")


AROUND: dict[str, Callable[[Critic], Critic]] = {
    "nothing": lambda inner: inner,
    "twice forwarded": lambda inner: CriticWrapper(CriticWrapper(inner)),
    "recorded": _recorded,
    "retried": lambda inner: FailoverCritic(inner, CriticFailurePolicy(retries=1)),
    "listening": Listening,
}


def make(around: str, inner: str) -> Critic:
    """For specs: ``wrapped_critics:make?around=recorded,inner=oracle``."""
    return AROUND[around](make_critic(inner))
