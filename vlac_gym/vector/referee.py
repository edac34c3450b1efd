"""Who says what env steps pay and whether they end an episode: `Referee`, `SimulatorReferee`, `StepOutcome`."""

__all__ = ["StepOutcome", "Referee", "SimulatorReferee"]

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from vlac_gym.rule.episode import Verdict
from vlac_gym.rule.round import OpenStep
from vlac_gym.vector.commands import ResetReply, StepCommand, StepReply


class StepOutcome(NamedTuple):
    """What one env step returns."""

    reward: float
    terminated: bool
    truncated: bool


class Referee(Protocol):
    """Says what each env step pays and whether it ends the episode.

    Attributes:
        believes_simulator: Whether the simulator's verdicts may be told.
    """

    believes_simulator: bool

    @property
    def takes_concurrent_calls(self) -> bool:
        """Whether `ask_once` may be called by several threads at once, about different steps."""
        ...

    def begin(self, index: int, reply: ResetReply, episode_id: int | None = None) -> dict[str, Any]:
        """An episode has begun; returns its info.

        Args:
            index: The env.
            reply: Of its reset.
            episode_id: What the episode is known by, whichever env plays it; None counts the env's own.
        """
        ...

    def command(self, index: int, actions: Sequence[Any]) -> StepCommand:
        """The first of these actions, as many as the env may execute before it must be looked at."""
        ...

    def take(self, index: int, reply: StepReply) -> tuple[Sequence[StepOutcome | Verdict], OpenStep | None]:
        """The outcomes of the executed steps; the last may be open, until `ask`."""
        ...

    def ask(self, steps: Mapping[int, OpenStep]) -> None:
        """Settles open steps, all in one round."""

    def ask_once(self, steps: Mapping[int, OpenStep]) -> None:
        """One call: about these open steps, whose questions are of one kind."""

    def info(self, index: int, reply: StepReply) -> dict[str, Any]:
        """The info of an env's last executed step."""
        ...


class SimulatorReferee:
    """Takes every env at its word."""

    believes_simulator = True
    takes_concurrent_calls = False

    def begin(self, index: int, reply: ResetReply, episode_id: int | None = None) -> dict[str, Any]:
        """The env's info."""
        return reply.info

    def command(self, index: int, actions: Sequence[Any]) -> StepCommand:
        """All actions; the env stops where it says that its episode is over."""
        return StepCommand(actions)

    def take(self, index: int, reply: StepReply) -> tuple[Sequence[StepOutcome], None]:
        """The env's own outcomes."""
        *before, last = reply.rewards.tolist()
        outcomes = [StepOutcome(reward, terminated=False, truncated=False) for reward in before]
        return [*outcomes, StepOutcome(last, reply.terminated, reply.truncated)], None

    def ask(self, steps: Mapping[int, OpenStep]) -> None:
        """There is nothing to ask."""

    def ask_once(self, steps: Mapping[int, OpenStep]) -> None:
        """There is nothing to ask."""

    def info(self, index: int, reply: StepReply) -> dict[str, Any]:
        """The env's info."""
        return reply.info
