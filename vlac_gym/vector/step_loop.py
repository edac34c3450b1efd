"""The step of N envs, whoever ends their episodes: `StepLoop`, `Envs`, `Referee`, `SimulatorReferee`."""

__all__ = ["Envs", "Outcome", "Referee", "SimulatorReferee", "StepLoop"]

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
from vlac_gym.vector.infos import stack_infos
from vlac_gym.vector.orders import Lost, Order, Report, ResetOrder, ResetReport, StepOrder, StepReport
from vlac_gym.vector.step_result import ChunkResult, VectorStep


class Envs(Protocol):
    """N envs that carry out one order each at a time."""

    num_envs: int

    def require_idle(self) -> None:
        """Raises `AlreadyPendingCallError` while orders are out."""

    def require_started(self) -> None:
        """Raises `ResetNeeded` unless every env was reset since the last error."""

    def reset_orders(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> dict[int, ResetOrder]:
        """The orders of a reset that the caller asked for, checked."""
        ...

    def autoreset_orders(self, indices: Sequence[int]) -> dict[int, ResetOrder]:
        """The orders of an automatic reset."""
        ...

    def submit(self, orders: Mapping[int, Order]) -> None:
        """Hands out orders; `collect` must follow."""

    def collect(self) -> dict[int, Report]:
        """Reports by env index."""
        ...

    def execute(self, orders: Mapping[int, Order]) -> dict[int, Report]:
        """`submit`, then `collect`."""
        ...

    def observations(self) -> Any:
        """All envs' latest observations."""
        ...

    def final_observation(self, index: int) -> Any:
        """A copy of one env's latest observation."""
        ...


class Outcome(NamedTuple):
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

    def begin(self, index: int, report: ResetReport) -> dict[str, Any]:
        """An episode has begun; returns its info."""
        ...

    def order(self, index: int, actions: Sequence[Any]) -> StepOrder:
        """The first of these actions, as many as the env may execute before it must be looked at."""
        ...

    def take(self, index: int, report: StepReport) -> tuple[Sequence[Outcome | Verdict], OpenStep | None]:
        """The outcomes of the executed steps; the last may be open, until `ask`."""
        ...

    def ask(self, steps: Mapping[int, OpenStep]) -> None:
        """Settles open steps, all in one round."""

    def info(self, index: int, report: StepReport) -> dict[str, Any]:
        """The info of an env's last executed step."""
        ...


class SimulatorReferee:
    """Takes every env at its word."""

    believes_simulator = True

    def begin(self, index: int, report: ResetReport) -> dict[str, Any]:
        """The env's info."""
        return report.info

    def order(self, index: int, actions: Sequence[Any]) -> StepOrder:
        """All actions; the env stops where it says that its episode is over."""
        return StepOrder(actions)

    def take(self, index: int, report: StepReport) -> tuple[Sequence[Outcome], None]:
        """The env's own outcomes."""
        *before, last = report.rewards.tolist()
        outcomes = [Outcome(reward, terminated=False, truncated=False) for reward in before]
        return [*outcomes, Outcome(last, report.terminated, report.truncated)], None

    def ask(self, steps: Mapping[int, OpenStep]) -> None:
        """There is nothing to ask."""

    def info(self, index: int, report: StepReport) -> dict[str, Any]:
        """The env's info."""
        return report.info


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
        self._orders: dict[int, StepOrder] = {}
        self._last: dict[int, StepReport] = {}
        self._open: dict[int, OpenStep] = {}
        self._stale: set[int] = set()  # envs of which only the critic's picture is fresh

    @property
    def over(self) -> NDArray[np.bool_]:
        """bool (N,): whose episode is over."""
        return self.terminations | self.truncations

    def reset_orders(
        self, *, seed: int | Sequence[int | None] | None, options: dict[str, Any] | None
    ) -> dict[int, ResetOrder]:
        """The orders of a reset for `reset`, checked; the episodes go on.

        Raises:
            ConfigError: An argument does not fit.
            AlreadyPendingCallError: A step is under way.
        """
        self._envs.require_idle()
        orders = self._envs.reset_orders(seed=seed, options=options)
        if len(orders) < self._envs.num_envs and not self.has_episodes:
            raise ConfigError("Expected a reset of all envs first, got a reset_mask. Leave it out.")
        return orders

    def reset(self, referee: Referee, orders: Mapping[int, ResetOrder]) -> tuple[Any, dict[str, Any]]:
        """Starts episodes; a new referee must get all envs."""
        self.has_episodes = False  # whatever raises below leaves episodes that can't go on
        self.referee = referee
        infos = self._started(orders)
        self.note_reset(list(orders))
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
        resets: dict[int, ResetOrder] = {}
        if self._autoreset_mode is AutoresetMode.NEXT_STEP:
            resets = self._envs.autoreset_orders(np.flatnonzero(chosen & self.over).tolist())
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
        for i, report in self._last.items():
            step.infos[i] = self.referee.info(i, report)
        self.latency_ms, self.errors = step.latency_ms, step.errors
        self.note_ends(step.terminations, step.truncations)
        if self._autoreset_mode is AutoresetMode.SAME_STEP:
            self._begin_next(step)
        self.has_episodes = True
        return step.result(self._envs.observations())

    def _run(self, step: VectorStep) -> None:
        reports = self._envs.collect()
        while True:
            for i, report in reports.items():
                self._take(step, i, report)
            orders = self._next_orders()
            if not orders and self._open:
                self._settle_open(step)
                orders = self._next_orders()
            if not orders:
                break
            reports = self._envs.execute(orders)
        if stale := sorted(self._stale & set(self._last)):
            # An env that is lost here had already ended: its verdict stands.
            self._envs.execute({i: StepOrder(()) for i in stale})

    def _next_orders(self) -> dict[int, StepOrder]:
        """Orders for the envs that have actions left and don't wait for an answer."""
        self._orders = {
            i: self.referee.order(i, actions)
            for i, actions in self._left.items()
            if len(actions) and i not in self._open
        }
        return self._orders

    def _take(self, step: VectorStep, i: int, report: Report) -> None:
        if isinstance(report, ResetReport):
            step.end(i, terminated=False, truncated=False)
            step.infos[i] = self.referee.begin(i, report)
        elif isinstance(report, Lost):
            self._left[i] = ()
            self._last.pop(i, None)
            step.lose(i, report.reason)
        elif isinstance(report, StepReport):
            self._take_steps(step, i, report)

    def _take_steps(self, step: VectorStep, i: int, report: StepReport) -> None:
        order, count = self._orders[i], len(report.rewards)
        self._left[i] = self._left[i][count:]
        is_whole = order.key is None or count < len(order.actions)
        (self._stale.discard if is_whole else self._stale.add)(i)
        self._last[i] = report
        if self.referee.believes_simulator:
            step.note_successes(i, report.successes)
        outcomes, last = self.referee.take(i, report)
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

    def _settle(self, step: VectorStep, i: int, outcome: Outcome | Verdict) -> None:
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
        for i, info in self._started(self._envs.autoreset_orders(ended)).items():
            step.begin_next(i, finals[i], info)

    def _started(self, orders: Mapping[int, ResetOrder]) -> dict[int, dict[str, Any]]:
        return {
            i: self.referee.begin(i, report)
            for i, report in self._envs.execute(orders).items()
            if isinstance(report, ResetReport)
        }
