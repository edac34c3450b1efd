"""What a `StepLoop` asks of the envs it steps: `Envs`."""

__all__ = ["Envs"]

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from vlac_gym.vector.commands import Command, Reply, ResetCommand


class Envs(Protocol):
    """N envs that carry out one command each at a time."""

    num_envs: int

    def require_idle(self) -> None:
        """Raises `AlreadyPendingCallError` while commands are out."""

    def require_started(self) -> None:
        """Raises `ResetNeeded` unless every env was reset since the last error."""

    def reset_commands(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> dict[int, ResetCommand]:
        """The commands of a reset that the caller asked for, checked."""
        ...

    def autoreset_commands(self, indices: Sequence[int]) -> dict[int, ResetCommand]:
        """The commands of an automatic reset."""
        ...

    def submit(self, commands: Mapping[int, Command]) -> None:
        """Hands out commands to envs that have none; `collect` must follow."""

    def collect(self) -> dict[int, Reply]:
        """All replies by env index."""
        ...

    def collect_ready(self, timeout_s: float | None, wake: Any) -> dict[int, Reply]:
        """The replies that are there; waits for one, but not past the timeout, nor once `wake` can be read."""
        ...

    def abandon(self) -> None:
        """Forgets the commands that are out: nobody waits for their replies."""

    def execute(self, commands: Mapping[int, Command]) -> dict[int, Reply]:
        """`submit`, then `collect`."""
        ...

    def observations(self, indices: Sequence[int] | None = None) -> Any:
        """Latest observations, of all envs or of some."""
        ...

    def final_observation(self, index: int) -> Any:
        """A copy of one env's latest observation."""
        ...
