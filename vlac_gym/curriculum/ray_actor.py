"""One curriculum for many processes: `RayCurriculum`, a `CurriculumManager` in a Ray actor. ray is loaded on use."""

__all__ = ["RayCurriculum"]

import importlib
import logging
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vlac_gym.curriculum import Assignment, CurriculumConfig, CurriculumManager, EpisodeResult
from vlac_gym.errors import ConfigError, VlacGymError
from vlac_gym.extras import needs

logger = logging.getLogger(__name__)


class _CurriculumActor:
    """The actor: a manager that saves itself, and that a restarted actor finds again."""

    def __init__(
        self,
        task_ids: Sequence[int],
        num_init_states: int | Sequence[int],
        config: CurriculumConfig,
        path: str | None,
        save_every: int,
    ) -> None:
        self._path = path
        self._save_every = save_every
        self._since_save = 0
        self._manager = _restored_or_new(task_ids, num_init_states, config, path)

    def describe(self) -> tuple[tuple[int, ...], CurriculumConfig]:
        return self._manager.task_ids, self._manager.config

    def get_batch(self, n: int) -> list[Assignment]:
        return self._manager.get_batch(n)

    def report_results(self, results: Sequence[EpisodeResult]) -> None:
        self._manager.report_results(results)
        self._since_save += len(results)
        if self._path is not None and self._since_save >= self._save_every:
            self._manager.save(self._path)
            self._since_save = 0

    def call(self, name: str, *args: Any) -> Any:
        return getattr(self._manager, name)(*args)


class RayCurriculum:
    """A `CurriculumManager` in a Ray actor, with its methods; any process of the cluster may hold one.

    `report_results` sends and returns, whatever the actor is doing: at most `max_in_flight` messages are under
    way, and what is reported meanwhile waits here and goes with a later message. At most `max_waiting` results
    wait; then the oldest are dropped and counted in `num_dropped`. A message that the actor didn't process is
    logged and counted in `num_failed`, never raised into a rollout. `flush` sends and waits.

    All other methods wait for the answer, at most `timeout_s`. Pickling it gives another process a
    connection of its own, with nothing waiting. Several threads may use one.

    Args:
        handle: The actor's handle; see `start` and `connect`.
        max_in_flight: Most unanswered messages, >= 1.
        max_waiting: Most results that wait here, >= 1.
        timeout_s: Deadline of the methods that wait, in s.

    Raises:
        ConfigError: An argument is out of range.
        DependencyNotInstalled: ray is missing.
        VlacGymError: The actor doesn't answer before the deadline, or has died; from every method that waits.
    """

    def __init__(
        self, handle: Any, *, max_in_flight: int = 8, max_waiting: int = 100_000, timeout_s: float = 60.0
    ) -> None:
        if max_in_flight < 1 or max_waiting < 1 or not timeout_s > 0:
            raise ConfigError(
                f"Expected max_in_flight and max_waiting >= 1 and timeout_s above 0, got {max_in_flight}, "
                f"{max_waiting} and {timeout_s}."
            )
        self._ray = _ray()
        self._handle = handle
        self._limits = {"max_in_flight": max_in_flight, "max_waiting": max_waiting, "timeout_s": timeout_s}
        self._max_in_flight = max_in_flight
        self._timeout_s = timeout_s
        self._in_flight: list[Any] = []
        self._waiting: deque[EpisodeResult] = deque(maxlen=max_waiting)
        self._num_dropped = self._num_failed = 0
        self._lock = threading.Lock()
        self._task_ids: tuple[int, ...]
        self._config: CurriculumConfig
        self._task_ids, self._config = self._answer(handle.describe.remote())

    @classmethod
    def start(
        cls,
        task_ids: Sequence[int],
        num_init_states: int | Sequence[int],
        config: CurriculumConfig | None = None,
        *,
        name: str | None = None,
        path: str | Path | None = None,
        save_every: int = 100,
        **options: Any,
    ) -> "RayCurriculum":
        """Starts the actor in the cluster that `ray.init` joined.

        Args:
            task_ids: See `CurriculumManager`.
            num_init_states: See there.
            config: See there.
            name: For `connect`; the actor then lives until it is stopped. None ties it to its handles.
            path: A file to go on from, if it is there, and to save to; an actor that dies goes on from it too.
            save_every: Results between two saves, >= 1.
            **options: As of the class.

        Raises:
            ConfigError: An argument does not fit, or the file holds a curriculum of other tasks, initial states or
                options; nothing was started.
        """
        config = config if config is not None else CurriculumConfig()
        file = None if path is None else str(Path(path).absolute())
        # The actor reads the file where it runs; where it is to be seen from here, a mismatch shows before that.
        _restored_or_new(task_ids, num_init_states, config, file)
        if save_every < 1:
            raise ConfigError(f"Expected save_every >= 1, got {save_every}.")
        ray = _ray()
        actor_options: dict[str, Any] = {"num_cpus": 0, "max_restarts": 0 if path is None else -1}
        if name is not None:
            actor_options |= {"name": name, "lifetime": "detached"}
        actor = ray.remote(**actor_options)(_CurriculumActor)
        try:
            handle = actor.remote(tuple(task_ids), num_init_states, config, file, save_every)
        except ValueError as e:
            raise ConfigError(f"A curriculum {name!r} can't be started: {e} Use connect if it runs.") from e
        return cls(handle, **options)

    @classmethod
    def connect(cls, name: str, **options: Any) -> "RayCurriculum":
        """Joins the actor that was started under `name`; `options` as of the class.

        Raises:
            ConfigError: There is no such actor.
        """
        try:
            handle = _ray().get_actor(name)
        except ValueError as e:
            raise ConfigError(f"No curriculum {name!r} runs in this Ray cluster. Start it first: {e}") from e
        return cls(handle, **options)

    @property
    def config(self) -> CurriculumConfig:
        """The options."""
        return self._config

    @property
    def task_ids(self) -> tuple[int, ...]:
        """The tasks to choose from."""
        return self._task_ids

    @property
    def num_dropped(self) -> int:
        """Results dropped here because too many waited."""
        return self._num_dropped

    @property
    def num_failed(self) -> int:
        """Messages that the actor didn't process."""
        return self._num_failed

    def get_batch(self, n: int) -> list[Assignment]:
        """See `CurriculumManager.get_batch`; waits."""
        batch: list[Assignment] = self._answer(self._handle.get_batch.remote(n))
        return batch

    def report_results(self, results: Sequence[EpisodeResult]) -> None:
        """See `CurriculumManager.report_results`; never waits."""
        with self._lock:
            for result in results:
                self._num_dropped += len(self._waiting) == self._waiting.maxlen
                self._waiting.append(result)
            self._reap()
            if len(self._in_flight) < self._max_in_flight:
                self._send()

    def flush(self) -> None:
        """Sends what waits, and waits until the actor has processed all of it."""
        with self._lock:
            self._send()
            sent, self._in_flight = self._in_flight, []
        if not sent:
            return
        done, late = self._ray.wait(sent, num_returns=len(sent), timeout=self._timeout_s)
        with self._lock:
            self._in_flight += late
            self._check(done)
        if late:
            raise VlacGymError(f"The curriculum did not process {len(late)} reports in {self._timeout_s} s.")

    def success_rates(self) -> dict[int, float]:
        """See `CurriculumManager.success_rates`; waits."""
        rates: dict[int, float] = self._call("success_rates")
        return rates

    def probabilities(self) -> dict[int, float]:
        """See `CurriculumManager.probabilities`; waits."""
        shares: dict[int, float] = self._call("probabilities")
        return shares

    def num_results(self) -> dict[int, int]:
        """See `CurriculumManager.num_results`; waits."""
        numbers: dict[int, int] = self._call("num_results")
        return numbers

    def counts(self) -> dict[str, int]:
        """See `CurriculumManager.counts`; waits."""
        counts: dict[str, int] = self._call("counts")
        return counts

    def metrics(self) -> dict[str, float]:
        """See `CurriculumManager.metrics`; waits."""
        metrics: dict[str, float] = self._call("metrics")
        return metrics

    def save(self, path: str | Path) -> None:
        """See `CurriculumManager.save`; on the actor's machine; waits."""
        self._call("save", str(Path(path).absolute()))

    def stop(self) -> None:
        """Ends the actor, for everybody; what waits here is lost, so `flush` and `save` first."""
        self._ray.kill(self._handle)

    def __eq__(self, other: object) -> bool:
        """Connections to one actor are equal: a result told to either is told to both."""
        return isinstance(other, RayCurriculum) and bool(self._handle == other._handle)

    def __hash__(self) -> int:
        return hash(self._handle)

    def __reduce__(self) -> Any:
        return _rebuild, (self._handle, self._limits)

    def _call(self, name: str, *args: Any) -> Any:
        return self._answer(self._handle.call.remote(name, *args))

    def _answer(self, reference: Any) -> Any:
        try:
            return self._ray.get(reference, timeout=self._timeout_s)
        except self._ray.exceptions.GetTimeoutError as e:
            raise VlacGymError(f"The curriculum did not answer in {self._timeout_s} s.") from e
        except self._ray.exceptions.RayTaskError as e:
            raise e.cause if isinstance(e.cause, VlacGymError) else VlacGymError(str(e)) from e
        except self._ray.exceptions.RayError as e:
            raise VlacGymError(f"The curriculum's actor is gone: {e}") from e

    def _send(self) -> None:
        if self._waiting:
            self._in_flight.append(self._handle.report_results.remote(list(self._waiting)))
            self._waiting.clear()

    def _reap(self) -> None:
        if self._in_flight:
            done, rest = self._ray.wait(self._in_flight, num_returns=len(self._in_flight), timeout=0)
            self._in_flight = list(rest)
            self._check(done)

    def _check(self, references: Sequence[Any]) -> None:
        for reference in references:
            try:
                self._ray.get(reference)
            except self._ray.exceptions.RayError as e:
                self._num_failed += 1
                logger.warning("the curriculum did not process a report: %s", e)


def _restored_or_new(
    task_ids: Sequence[int],
    num_init_states: int | Sequence[int],
    config: CurriculumConfig,
    path: str | None,
) -> CurriculumManager:
    """The manager that was saved to `path`, if one was, else a new one.

    Raises:
        ConfigError: An argument does not fit, or differs from what was saved.
    """
    manager = CurriculumManager(task_ids, num_init_states, config)
    if path is None or not Path(path).exists():
        return manager
    saved = CurriculumManager.load(path)
    for name in ("task_ids", "num_init_states", "config"):
        expected, found = getattr(manager, name), getattr(saved, name)
        if found != expected:
            raise ConfigError(
                f"Expected the curriculum in {path} to have {name} {expected}, got {found}. Start with what was "
                "saved, or move the file away to begin anew."
            )
    return saved


def _rebuild(handle: Any, limits: dict[str, Any]) -> RayCurriculum:
    return RayCurriculum(handle, **limits)


def _ray() -> Any:
    with needs("RayCurriculum", "ray"):
        return importlib.import_module("ray")
