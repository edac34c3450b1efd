"""Critics around another: `CriticWrapper`, and `adapted`, which completes a critic that only answers."""

__all__ = ["CriticWrapper", "adapted"]

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from vlac_gym.critic.base import BaseCritic, Critic
from vlac_gym.types import CriticInfo, FloatArray, Frame

_Inner = TypeVar("_Inner", bound=Critic)
_T = TypeVar("_T")


class _Forwarding(BaseCritic, Generic[_Inner]):
    """Puts what every critic is asked to the one inside, and closes it."""

    def __init__(self, critic: _Inner) -> None:
        self.critic = critic

    def success_prob(self, frames: Sequence[Frame], tasks: Sequence[str]) -> FloatArray:
        """The inner critic's."""
        return self._ask(lambda critic: critic.success_prob(frames, tasks))

    def progress(
        self,
        before: Sequence[Frame],
        after: Sequence[Frame],
        tasks: Sequence[str],
        references: Sequence[Frame] | None = None,
    ) -> FloatArray:
        """The inner critic's."""
        return self._ask(lambda critic: critic.progress(before, after, tasks, references))

    def value(
        self, frames: Sequence[Frame], task: str, references: Sequence[Frame] | None = None
    ) -> FloatArray:
        """The inner critic's."""
        return self._ask(lambda critic: critic.value(frames, task, references))

    def describe(self) -> CriticInfo:
        """The inner critic's."""
        return self.critic.describe()

    def close(self) -> None:
        """Closes the inner critic."""
        self.critic.close()

    def _ask(self, call: Callable[[_Inner], _T]) -> _T:
        """Every question passes here: where it goes to another critic, or several times, override this alone."""
        return call(self.critic)


class CriticWrapper(_Forwarding[BaseCritic]):
    """A critic around another that forwards everything, privilege included; override what is to differ.

    `value`, `values` and `value_and_progress` each ask the one inside; the training rule asks `values`.

    Frames are passed on as they are: those for a privileged critic carry the simulator's signals, and those for one
    that takes them from a device are `DeviceFrame`s. One that reads pixels itself begins with `np.asarray`, or says
    ``takes_device_frames = False`` in its class and is shown arrays. One whose own methods can't be called by several
    threads at once says ``takes_concurrent_calls = False``.

    Args:
        critic: The one inside, closed with this one; one with the methods of `Critic` alone will do.

    Attributes:
        critic: The one inside.
        takes_device_frames: Whether both it and the one inside do.
        takes_concurrent_calls: The same.

    Example:
        >>> from vlac_gym.critic.oracle import OracleCritic
        >>> CriticWrapper(OracleCritic()).describe().is_privileged
        True
    """

    takes_device_frames = True
    takes_concurrent_calls = True

    def __init__(self, critic: Critic) -> None:
        super().__init__(adapted(critic))
        self.is_remote = self.critic.is_remote
        self.takes_device_frames = self.takes_device_frames and self.critic.takes_device_frames
        self.takes_concurrent_calls = self.takes_concurrent_calls and self.critic.takes_concurrent_calls

    @property
    def unwrapped(self) -> Critic:
        """The innermost critic."""
        inner = self.critic
        return inner.unwrapped if isinstance(inner, CriticWrapper) else inner

    @property
    def can_sleep(self) -> bool:
        """The inner critic's."""
        return self.critic.can_sleep

    @property
    def retries(self) -> int:
        """The inner critic's."""
        return self.critic.retries

    @property
    def failovers(self) -> int:
        """The inner critic's."""
        return self.critic.failovers

    @property
    def failbacks(self) -> int:
        """The inner critic's."""
        return self.critic.failbacks

    def values(
        self,
        episodes: Sequence[Sequence[Frame]],
        tasks: Sequence[str],
        references: Sequence[Frame] | None = None,
    ) -> list[FloatArray]:
        """The inner critic's."""
        return self._ask(lambda critic: critic.values(episodes, tasks, references))

    def value_and_progress(
        self, frames: Sequence[Frame], task: str, references: Sequence[Frame] | None = None
    ) -> tuple[FloatArray, FloatArray]:
        """The inner critic's."""
        return self._ask(lambda critic: critic.value_and_progress(frames, task, references))

    def identify(self, *, retry: bool = True) -> CriticInfo:
        """The inner critic's."""
        return self._ask(lambda critic: critic.identify(retry=retry))

    def warm_up(self) -> None:
        """The inner critic's."""
        self.critic.warm_up()

    def sleep(self) -> None:
        """The inner critic's."""
        self.critic.sleep()

    def wake(self) -> None:
        """The inner critic's."""
        self.critic.wake()

    def gpu_memory_bytes(self) -> int | None:
        """The inner critic's."""
        return self.critic.gpu_memory_bytes()


def adapted(critic: Critic) -> BaseCritic:
    """The critic itself if it is a `BaseCritic`, else one around it with the neutral defaults.

    Called once, where a critic enters: `make_critic`, the wrappers, the service, the report card, `score_episode`.
    """
    return critic if isinstance(critic, BaseCritic) else _Adapted(critic)


class _Adapted(_Forwarding[Critic]):
    """A critic with the methods of `Critic` alone.

    Of the further methods of `BaseCritic`, those that it has are used; they are looked up here, once.
    """

    def __init__(self, critic: Critic) -> None:
        super().__init__(critic)
        for name in ("values", "value_and_progress", "warm_up", "gpu_memory_bytes"):
            if callable(own := getattr(critic, name, None)):
                setattr(self, name, own)
        self._can_sleep = all(callable(getattr(critic, name, None)) for name in ("sleep", "wake"))

    @property
    def can_sleep(self) -> bool:
        return self._can_sleep

    def sleep(self) -> None:
        self._switch("sleep")

    def wake(self) -> None:
        self._switch("wake")

    def _switch(self, method: str) -> None:
        if not self._can_sleep:
            raise self._sleepless(method)
        own: Any = self.critic
        getattr(own, method)()
