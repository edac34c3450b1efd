"""The step of N envs, whoever ends their episodes: `StepLoop`, `Envs`, `Referee`, `SimulatorReferee`."""

__all__ = ["Envs", "StepOutcome", "Referee", "SimulatorReferee", "StepLoop"]

import weakref
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from gymnasium.error import NoAsyncCallError, ResetNeeded
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from vlac_gym.errors import ConfigError, CriticError
from vlac_gym.rule.episode import Verdict
from vlac_gym.rule.round import OpenStep
from vlac_gym.vector.commands import Command, Lost, Reply, ResetCommand, ResetReply, StepCommand, StepReply
from vlac_gym.vector.infos import stack_infos
from vlac_gym.vector.step_result import ChunkResult, VectorStep


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
        """Hands out commands; `collect` must follow."""

    def collect(self) -> dict[int, Reply]:
        """Reports by env index."""
        ...

    def execute(self, commands: Mapping[int, Command]) -> dict[int, Reply]:
        """`submit`, then `collect`."""
        ...

    def observations(self) -> Any:
        """All envs' latest observations."""
        ...

    def final_observation(self, index: int) -> Any:
        """A copy of one env's latest observation."""
        ...


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

    def begin(self, index: int, reply: ResetReply) -> dict[str, Any]:
        """An episode has begun; returns its info."""
        ...

    def command(self, index: int, actions: Sequence[Any]) -> StepCommand:
        """The first of these actions, as many as the env may execute before it must be looked at."""
        ...

    def take(self, index: int, reply: StepReply) -> tuple[Sequence[StepOutcome | Verdict], OpenStep | None]:
        """The outcomes of the executed steps; the last may be open, until `ask`."""
        ...

    def ask(self, steps: Mapping[int, OpenStep]) -> None:
        """Settles open steps, all in one round."""

    def info(self, index: int, reply: StepReply) -> dict[str, Any]:
        """The info of an env's last executed step."""
        ...


class SimulatorReferee:
    """Takes every env at its word."""

    believes_simulator = True

    def begin(self, index: int, reply: ResetReply) -> dict[str, Any]:
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

    def info(self, index: int, reply: StepReply) -> dict[str, Any]:
        """The env's info."""
        return reply.info


class StepLoop:
    """Runs up to T actions in each running env, has the referee settle them, and resets envs as the mode says.

    Envs go ahead on their own until the referee must look, and are then asked about together: a critic gets as many
    rounds as the env with the most checks has, one for a chunk of one action.

    Args:
        envs: The envs, which must outlive this.
        autoreset_mode: When an env is reset whose episode is over.

    Attributes:
        terminations: bool (N,), whose episode is over, terminated, and not yet followed by another.
        truncations: The same for truncated ones.
        referee: Of the episodes begun last.
        has_episodes: False before the first reset, and after an error in the middle of a step.
        latency_ms: float64 (N,), of the critic's calls for each env's last step; NaN where it was not asked.
        errors: By env, why the critic gave no usable answer in the last step.
    """

    def __init__(self, envs: Envs, autoreset_mode: AutoresetMode) -> None:
        count = envs.num_envs
        self.terminations = np.zeros(count, np.bool_)
        self.truncations = np.zeros(count, np.bool_)
        self.has_episodes = False
        self.referee: Referee = SimulatorReferee()
        self.latency_ms: NDArray[np.float64] = np.full(count, np.nan)
        self.errors: dict[int, CriticError] = {}
        self._envs: Envs = weakref.proxy(envs)  # they hold this: a cycle would keep forgotten workers alive
        self._autoreset_mode = autoreset_mode
        self._step: VectorStep | None = None  # the one under way
        self._left: dict[int, Sequence[Any]] = {}  # its actions that are not executed yet
        self._commands: dict[int, StepCommand] = {}
        self._last: dict[int, StepReply] = {}
        self._open: dict[int, OpenStep] = {}
        self._stale: set[int] = set()  # envs of which only the critic's picture is fresh

    @property
    def over(self) -> NDArray[np.bool_]:
        """bool (N,): whose episode is over."""
        return self.terminations | self.truncations

    def reset_commands(
        self, *, seed: int | Sequence[int | None] | None, options: dict[str, Any] | None
    ) -> dict[int, ResetCommand]:
        """The commands of a reset for `reset`, checked; the episodes go on.

        Raises:
            ConfigError: An argument does not fit.
            AlreadyPendingCallError: A step is under way.
        """
        self._envs.require_idle()
        commands = self._envs.reset_commands(seed=seed, options=options)
        if len(commands) < self._envs.num_envs and not self.has_episodes:
            raise ConfigError("Expected a reset of all envs first, got a reset_mask. Leave it out.")
        return commands

    def reset(self, referee: Referee, commands: Mapping[int, ResetCommand]) -> tuple[Any, dict[str, Any]]:
        """Starts episodes; a new referee must get all envs."""
        self.has_episodes = False  # whatever raises below leaves episodes that can't go on
        self.referee = referee
        infos = self._started(commands)
        self.note_reset(list(commands))
        return self._envs.observations(), stack_infos(infos, self._envs.num_envs)

    def note_reset(self, indices: Sequence[int]) -> None:
        """These envs have begun an episode, and all others are in one or over."""
        self.terminations[indices] = self.truncations[indices] = False
        self.has_episodes = True

    def note_ends(self, terminations: NDArray[np.bool_], truncations: NDArray[np.bool_]) -> None:
        """How a step has left the episodes, before what SAME_STEP resets begins anew."""
        self.terminations, self.truncations = terminations.copy(), truncations.copy()
        if self._autoreset_mode is AutoresetMode.SAME_STEP:
            self.terminations[:] = self.truncations[:] = False

    def begin(self, actions: Sequence[Any], chosen: NDArray[np.bool_]) -> None:
        """Sends the chosen envs off.

        Args:
            actions: T actions of each env.
            chosen: bool (N,).

        Raises:
            ResetNeeded: There are no episodes, as before the first reset and after an error in a step.
            AlreadyPendingCallError: A step is under way.
        """
        self._envs.require_idle()
        self._envs.require_started()
        if not self.has_episodes:
            raise ResetNeeded("There are no running episodes. Call reset() before the next step().")
        resets: dict[int, ResetCommand] = {}
        if self._autoreset_mode is AutoresetMode.NEXT_STEP:
            resets = self._envs.autoreset_commands(np.flatnonzero(chosen & self.over).tolist())
        self._left = {i: actions[i] for i in np.flatnonzero(chosen & ~self.over).tolist()}
        self._last, self._open, self._stale = {}, {}, set()
        self._step = VectorStep(self._envs.num_envs, len(actions[0]))
        self._step.terminations[:], self._step.truncations[:] = self.terminations, self.truncations
        self._envs.submit({**resets, **self._next_orders()})

    def finish(self) -> ChunkResult:
        """Waits for the envs, settles their steps, and resets whom SAME_STEP resets.

        Raises:
            NoAsyncCallError: No step is under way.
            CriticError: As the referee raises it.
        """
        if self._step is None:
            raise NoAsyncCallError("Call step_async or step_chunk_async first.", "step")
        step, self._step = self._step, None
        self.has_episodes = False  # whatever raises below leaves episodes that can't go on
        self._run(step)
        for i, reply in self._last.items():
            step.infos[i] = self.referee.info(i, reply)
        self.latency_ms, self.errors = step.latency_ms, step.errors
        self.note_ends(step.terminations, step.truncations)
        if self._autoreset_mode is AutoresetMode.SAME_STEP:
            self._begin_next(step)
        self.has_episodes = True
        return step.result(self._envs.observations())

    def _run(self, step: VectorStep) -> None:
        replies = self._envs.collect()
        while True:
            for i, reply in replies.items():
                self._take(step, i, reply)
            commands = self._next_orders()
            if not commands and self._open:
                self._settle_open(step)
                commands = self._next_orders()
            if not commands:
                break
            replies = self._envs.execute(commands)
        if stale := sorted(self._stale & set(self._last)):
            # An env that is lost here had already ended: its verdict stands.
            self._envs.execute({i: StepCommand(()) for i in stale})

    def _next_orders(self) -> dict[int, StepCommand]:
        """Orders for the envs that have actions left and don't wait for an answer."""
        self._commands = {
            i: self.referee.command(i, actions)
            for i, actions in self._left.items()
            if len(actions) and i not in self._open
        }
        return self._commands

    def _take(self, step: VectorStep, i: int, reply: Reply) -> None:
        if isinstance(reply, ResetReply):
            step.end(i, terminated=False, truncated=False)
            step.infos[i] = self.referee.begin(i, reply)
        elif isinstance(reply, Lost):
            self._left[i] = ()
            self._last.pop(i, None)
            step.lose(i, reply.reason)
        elif isinstance(reply, StepReply):
            self._take_steps(step, i, reply)

    def _take_steps(self, step: VectorStep, i: int, reply: StepReply) -> None:
        command, count = self._commands[i], len(reply.rewards)
        self._left[i] = self._left[i][count:]
        is_whole = command.key is None or count < len(command.actions)
        (self._stale.discard if is_whole else self._stale.add)(i)
        self._last[i] = reply
        if self.referee.believes_simulator:
            step.note_successes(i, reply.successes)
        outcomes, last = self.referee.take(i, reply)
        for outcome in outcomes:
            self._settle(step, i, outcome)
        if last is not None:
            self._open[i] = last

    def _settle_open(self, step: VectorStep) -> None:
        asked, self._open = self._open, {}
        self.referee.ask(asked)
        for i, settled in asked.items():
            self._settle(step, i, settled.verdict)
            step.latency_ms[i] = np.nan if settled.latency_ms is None else settled.latency_ms
            if settled.error is not None:
                step.errors[i] = settled.error

    def _settle(self, step: VectorStep, i: int, outcome: StepOutcome | Verdict) -> None:
        step.pay(i, outcome.reward)
        step.end(i, terminated=outcome.terminated, truncated=outcome.truncated)
        step.latency_ms[i] = np.nan
        if outcome.terminated or outcome.truncated:
            self._left[i] = ()

    def _begin_next(self, step: VectorStep) -> None:
        ended = np.flatnonzero(step.terminations | step.truncations).tolist()
        if not ended:
            return
        finals = {i: self._envs.final_observation(i) for i in ended}
        for i, info in self._started(self._envs.autoreset_commands(ended)).items():
            step.begin_next(i, finals[i], info)

    def _started(self, commands: Mapping[int, ResetCommand]) -> dict[int, dict[str, Any]]:
        return {
            i: self.referee.begin(i, reply)
            for i, reply in self._envs.execute(commands).items()
            if isinstance(reply, ResetReply)
        }
