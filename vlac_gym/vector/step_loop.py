"""The steps of N envs, whoever ends their episodes: `StepLoop`."""

__all__ = ["StepLoop"]

import time
import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium.error import AlreadyPendingCallError, NoAsyncCallError, ResetNeeded
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from vlac_gym.errors import ConfigError, CriticError
from vlac_gym.rule.round import OpenStep
from vlac_gym.vector.asking import Asking
from vlac_gym.vector.commands import Command, Lost, Reply, ResetCommand, ResetReply, StepCommand, StepReply
from vlac_gym.vector.envs import Envs
from vlac_gym.vector.infos import stack_infos
from vlac_gym.vector.referee import Referee, SimulatorReferee
from vlac_gym.vector.step_result import ChunkResult, EnvStep, Stage, chunk_result


class StepLoop:
    """Runs up to T actions in each env, has the referee settle them, and resets envs as the mode says.

    In lockstep (`begin`, `finish`) envs go ahead on their own until the referee must look, and are then asked about
    together: a critic gets as many rounds as the env with the most checks has, one for a chunk of one action.
    Ready-first (`send`, `receive`) no env waits for another: each goes on when its own question is answered, and the
    questions of a kind that come together meanwhile make one call.

    Args:
        envs: The envs, which must outlive this.
        autoreset_mode: When an env is reset whose episode is over.

    Attributes:
        terminations: bool (N,), whose episode is over, terminated, and not yet followed by another.
        truncations: The same for truncated ones.
        referee: Of the episodes begun last.
        has_episode: bool (N,); False before an env's first reset, and after an error in the middle of a step.
        latency_ms: float64 (N,), of the critic's calls for each env's last step; NaN where it was not asked.
        errors: By env, why the critic gave no usable answer in the last step.
        window_s: Ready-first, how long the first question waits for others.
    """

    def __init__(self, envs: Envs, autoreset_mode: AutoresetMode) -> None:
        count = envs.num_envs
        self.terminations = np.zeros(count, np.bool_)
        self.truncations = np.zeros(count, np.bool_)
        self.has_episode = np.zeros(count, np.bool_)
        self.referee: Referee = SimulatorReferee()
        self.latency_ms: NDArray[np.float64] = np.full(count, np.nan)
        self.errors: dict[int, CriticError] = {}
        self.window_s = 0.0
        self._envs: Envs = weakref.proxy(envs)  # they hold this: a cycle would keep forgotten workers alive
        self._autoreset_mode = autoreset_mode
        self._steps: dict[int, EnvStep] = {}  # under way
        self._ready: dict[int, EnvStep] = {}  # ready-first, not yet received
        self._width: int | None = None  # T of the vector step under way
        self._asking: Asking | None = None
        self._is_interrupted = False

    @property
    def has_episodes(self) -> bool:
        """Whether every env has an episode, running or over."""
        return bool(self.has_episode.all())

    @has_episodes.setter
    def has_episodes(self, value: bool) -> None:
        self.has_episode[:] = value

    @property
    def over(self) -> NDArray[np.bool_]:
        """bool (N,): whose episode is over."""
        return self.terminations | self.truncations

    def require_idle(self) -> None:
        """Raises `AlreadyPendingCallError` while a step is under way, or ready and not received."""
        self._envs.require_idle()
        if self._width is None and (self._steps or self._ready):
            pending = sorted([*self._steps, *self._ready])
            raise AlreadyPendingCallError(f"Steps of envs {pending} are under way. Call recv first.", "send")

    def reset_commands(
        self, *, seed: int | Sequence[int | None] | None, options: dict[str, Any] | None
    ) -> dict[int, ResetCommand]:
        """The commands of a reset for `reset`, checked; the episodes go on.

        Raises:
            ConfigError: An argument does not fit.
            AlreadyPendingCallError: A step is under way.
        """
        self.require_idle()
        commands = self._envs.reset_commands(seed=seed, options=options)
        if len(commands) < self._envs.num_envs and not self.has_episodes:
            raise ConfigError("Expected a reset of all envs first, got a reset_mask. Leave it out.")
        return commands

    def reset(self, referee: Referee, commands: Mapping[int, ResetCommand]) -> tuple[Any, dict[str, Any]]:
        """Starts episodes; a new referee must get all envs."""
        self.has_episodes = False  # whatever raises below leaves episodes that can't go on
        self.referee = referee
        infos = {
            i: self.referee.begin(i, reply)
            for i, reply in self._envs.execute(commands).items()
            if isinstance(reply, ResetReply)
        }
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

    # In lockstep.

    def begin(self, actions: Sequence[Any], chosen: NDArray[np.bool_]) -> None:
        """Sends the chosen envs off.

        Args:
            actions: T actions of each env.
            chosen: bool (N,).

        Raises:
            ResetNeeded: There are no episodes, as before the first reset and after an error in a step.
            AlreadyPendingCallError: A step is under way.
        """
        self.require_idle()
        self._envs.require_started()
        if not self.has_episodes:
            raise ResetNeeded("There are no running episodes. Call reset() before the next step().")
        resets: dict[int, ResetCommand] = {}
        if self._autoreset_mode is AutoresetMode.NEXT_STEP:
            resets = self._envs.autoreset_commands(np.flatnonzero(chosen & self.over).tolist())
        moving = {i: EnvStep(actions[i]) for i in np.flatnonzero(chosen & ~self.over).tolist()}
        self._steps = moving | {i: EnvStep() for i in resets}
        self._width = len(actions[0])
        self._submit({**resets, **self._step_commands(moving)})

    def finish(self) -> ChunkResult:
        """Waits for the envs, settles their steps, and resets whom SAME_STEP resets.

        Raises:
            NoAsyncCallError: No step is under way.
            CriticError: As the referee raises it.
        """
        width, self._width = self._width, None
        if width is None:
            raise NoAsyncCallError("Call step_async or step_chunk_async first.", "step")
        self.has_episodes = False  # whatever raises below leaves episodes that can't go on
        try:
            while (stage := min(map(self._stage, self._steps.values()), default=Stage.READY)) < Stage.READY:
                self._together(stage)
        finally:
            steps, self._steps = self._steps, {}
        self.latency_ms, self.errors = np.full(self._envs.num_envs, np.nan), {}
        self._note(steps)
        self.has_episodes = True
        result = chunk_result(steps, self._envs.num_envs, width, self._envs.observations())
        idle = [i for i in range(self._envs.num_envs) if i not in steps]
        result.terminations[idle], result.truncations[idle] = self.terminations[idle], self.truncations[idle]
        return result

    def _together(self, stage: Stage) -> None:
        """Does what those envs need that are furthest behind."""
        same = {i: step for i, step in self._steps.items() if self._stage(step) is stage}
        if stage is Stage.MOVING:
            self._take_all(self._envs.collect())
        elif stage is Stage.ASK:
            questions = _questions(same)
            self.referee.ask(questions)
            self._settle_all(questions)
        elif stage is Stage.RESET:
            self._submit(self._next_episodes(same))
        else:
            self._submit(self._step_commands(same))

    # Ready-first.

    def send(self, actions: Mapping[int, Sequence[Any]]) -> None:
        """Sends some envs off, whatever the others do.

        Args:
            actions: By env, one or more.

        Raises:
            ConfigError: An env's episode is over, under DISABLED.
            ResetNeeded: An env has no episode.
            AlreadyPendingCallError: An env's last step is not received.
        """
        self._require_free(actions)
        if missing := [i for i in actions if not self.has_episode[i]]:
            raise ResetNeeded(f"Envs {missing} have no episode. Reset them before stepping.")
        over = [i for i in sorted(actions) if self.over[i]]
        if over and self._autoreset_mode is AutoresetMode.DISABLED:
            raise ConfigError(f"Expected running episodes, got envs {over}, whose are over. Call send_reset.")
        moving = {i: EnvStep(actions[i]) for i in sorted(actions) if i not in over}
        resets = self._envs.autoreset_commands(over) if over else {}
        self._steps |= moving | {i: EnvStep() for i in resets}
        self._submit({**resets, **self._step_commands(moving)})

    def send_reset(
        self, referee: Referee, commands: Mapping[int, ResetCommand], episode_ids: Mapping[int, int]
    ) -> None:
        """Begins episodes in some envs, whatever the others do.

        Args:
            referee: The same for all envs.
            commands: By env.
            episode_ids: By env, where `Referee.begin` shall get one.

        Raises:
            AlreadyPendingCallError: An env's last step is not received.
        """
        self._require_free(commands)
        self.referee = referee
        self._steps |= {i: EnvStep((), episode_ids.get(i)) for i in commands}
        self._submit(commands)

    def receive(self, min_ready: int, timeout_s: float | None) -> tuple[list[int], ChunkResult]:
        """Waits until `min_ready` of the envs that were sent off are ready, and takes all that are.

        Returns:
            The envs, in ascending order, and what came of them; none after the timeout, in s.

        Raises:
            NoAsyncCallError: Nothing was sent.
            CriticError: As the referee raises it; all episodes are lost.
        """
        if self._width is not None or not (self._steps or self._ready):
            raise NoAsyncCallError("Nothing is under way. Call send first.", "recv")
        try:
            self._drive(min_ready, None if timeout_s is None else time.monotonic() + timeout_s)
        except BaseException:
            self._abandon()
            raise
        self._ready, ready = {}, dict(sorted(self._ready.items()))
        indices = list(ready)
        self.errors = {i: error for i, error in self.errors.items() if i not in ready}
        self._note(ready)
        self.has_episode[indices] = True
        width = max((len(step.rewards) for step in ready.values()), default=0)
        rows = dict(enumerate(ready.values()))
        return indices, chunk_result(rows, len(rows), max(1, width), self._envs.observations(indices))

    def interrupt(self) -> None:
        """Has a `receive` that waits, else the next one, return what is ready; may be called from any thread."""
        self._is_interrupted = True
        if (asking := self._asking) is not None:
            asking.wake.ring()

    def close(self) -> None:
        """Ends the threads that ask, after the calls under way."""
        asking, self._asking = self._asking, None
        if asking is not None:
            asking.close()

    def _drive(self, min_ready: int, until: float | None) -> None:
        asking = self._asking = self._asking or Asking()
        wait_s: float | None = 0.0  # first all that has come meanwhile
        while self._steps:
            replies = self._envs.collect_ready(wait_s, asking.wake.connection)
            self._take_all(replies)
            answered = asking.answered()
            self._settle_all(answered)
            self._go_on([*replies, *answered])
            wait_s = self._ask_in_time(asking)
            left_s = None if until is None else until - time.monotonic()
            is_interrupted, self._is_interrupted = self._is_interrupted, False
            if is_interrupted or len(self._ready) >= min_ready or (left_s is not None and left_s <= 0):
                return
            wait_s = left_s if wait_s is None else wait_s if left_s is None else min(wait_s, left_s)

    def _go_on(self, indices: Iterable[int]) -> None:
        """Hands each of these envs what it needs next, and puts aside those that are ready."""
        commands: dict[int, Command] = {}
        for i in sorted(set(indices)):
            step = self._steps[i]
            stage = self._stage(step)
            if stage is Stage.READY:
                self._ready[i] = self._steps.pop(i)
            elif stage is Stage.RESET:
                commands |= self._next_episodes({i: step})
            elif stage in (Stage.ACT, Stage.LOOK):
                commands |= self._step_commands({i: step})
        if commands:
            self._submit(commands)

    def _ask_in_time(self, asking: Asking) -> float | None:
        """Begins calls if it is time; else returns when it will be, in s from now, or None if that depends."""
        questions = asking.askable(self.referee, _questions(self._steps))
        if not questions:
            return None
        if len(questions) < len(self._steps) and (wait_s := asking.wait_s(self.window_s)) > 0:
            return wait_s
        asking.ask(self.referee, questions)
        return None

    def _require_free(self, indices: Iterable[int]) -> None:
        if self._width is not None:
            self.require_idle()
        if busy := sorted(set(indices) & (set(self._steps) | set(self._ready))):
            raise AlreadyPendingCallError(f"Steps of envs {busy} are under way. Call recv first.", "send")

    def _abandon(self) -> None:
        self._steps, self._ready = {}, {}
        self.has_episodes = False
        self._envs.abandon()
        self.close()  # an answer that is still to come is nobody's

    # One env's step, either way.

    def _stage(self, step: EnvStep) -> Stage:
        return step.stage(resets=self._autoreset_mode is AutoresetMode.SAME_STEP)

    def _step_commands(self, steps: Mapping[int, EnvStep]) -> dict[int, StepCommand]:
        """The actions up to the next that the referee must see or, where none is left, only a look."""
        return {
            i: self.referee.command(i, step.left) if len(step.left) else StepCommand(())
            for i, step in steps.items()
        }

    def _next_episodes(self, ended: Mapping[int, EnvStep]) -> dict[int, ResetCommand]:
        """The automatic resets of SAME_STEP; what the ended episodes looked like last is kept."""
        for i, step in ended.items():
            self._tell(i, step)
            step.begin_next(self._envs.final_observation(i))
        return self._envs.autoreset_commands(list(ended))

    def _submit(self, commands: Mapping[int, Command]) -> None:
        self._envs.submit(commands)
        for i, command in commands.items():
            self._steps[i].command = command

    def _take_all(self, replies: Mapping[int, Reply]) -> None:
        for i, reply in replies.items():
            self._take(i, self._steps[i], reply)

    def _take(self, i: int, step: EnvStep, reply: Reply) -> None:
        command, step.command = step.command, None
        if isinstance(reply, ResetReply):
            step.info = (step.info or {}) | self.referee.begin(i, reply, step.episode_id)
        elif isinstance(command, StepCommand) and not len(command.actions):
            step.is_stale = False  # an env that is lost here had already ended: its verdict stands
            step.look_lost = reply.reason if isinstance(reply, Lost) else None
        elif isinstance(reply, Lost):
            step.lose(reply.reason)
        elif isinstance(reply, StepReply) and isinstance(command, StepCommand):
            self._take_steps(i, step, command, reply)

    def _take_steps(self, i: int, step: EnvStep, command: StepCommand, reply: StepReply) -> None:
        count = len(reply.rewards)
        step.left = step.left[count:]
        step.is_stale = command.key is not None and count == len(command.actions)
        step.reply = reply
        if self.referee.believes_simulator:
            step.note_successes(reply.successes)
        outcomes, last = self.referee.take(i, reply)
        for outcome in outcomes:
            step.settle(outcome.reward, terminated=outcome.terminated, truncated=outcome.truncated)
        step.question = last

    def _settle_all(self, asked: Mapping[int, OpenStep]) -> None:
        """Takes the verdicts on steps that were asked about; those with a further question have none yet."""
        for i, answered in asked.items():
            if answered.question is None:
                self._steps[i].take_verdict(answered)

    def _tell(self, i: int, step: EnvStep) -> None:
        """The info of the last executed action, once."""
        if step.reply is not None:
            step.info, step.reply = self.referee.info(i, step.reply), None
            if step.look_lost is not None:
                step.info = {**step.info, "look_lost": step.look_lost}

    def _note(self, steps: Mapping[int, EnvStep]) -> None:
        """What the loop remembers of steps that are ready."""
        goes_on = self._autoreset_mode is AutoresetMode.SAME_STEP
        for i, step in steps.items():
            self._tell(i, step)
            self.latency_ms[i] = step.latency_ms
            if step.error is not None:
                self.errors[i] = step.error
            self.terminations[i] = step.terminated and not goes_on
            self.truncations[i] = step.truncated and not goes_on


def _questions(steps: Mapping[int, EnvStep]) -> dict[int, OpenStep]:
    return {i: step.question for i, step in steps.items() if step.question is not None}
