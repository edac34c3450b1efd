"""Keeps the policy with the best return: `BestReturnTracker`, `BestPolicy`."""

__all__ = ["BestPolicy", "BestReturnTracker"]

import logging
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from vlac_gym.errors import ConfigError
from vlac_gym.files.atomic import partial_path, sync_tree, write_json
from vlac_gym.files.json_objects import read_json_object
from vlac_gym.types import CriticInfo

logger = logging.getLogger(__name__)

_VERSION = 1


@dataclass(frozen=True)
class BestPolicy:
    """What `metadata.json` says of the best policy so far.

    Attributes:
        policy_path: What the save function wrote, a file or a folder; in the file, relative to it.
        ema_return: The average return that made it the best.
        current_return: Mean return of the episodes of that update.
        training_step: The trainer's step of that update.
        global_step: Env steps, or whatever the trainer counts, at that update.
        exp_id: Name of the run.
        critic: Name of the critic that paid the returns, or None.
        critic_fingerprint: Its fingerprint, or None.
        timestamp: When it was saved; ISO 8601, UTC.
    """

    policy_path: Path
    ema_return: float
    current_return: float
    training_step: int
    global_step: int
    exp_id: str
    critic: str | None
    critic_fingerprint: str | None
    timestamp: str

    @classmethod
    def read(cls, folder: str | Path) -> Self | None:
        """The best policy of a run's folder, or None if none was saved yet.

        Raises:
            ConfigError: `best_return/metadata.json` does not hold that.
        """
        path = Path(folder) / "best_return" / "metadata.json"
        content = _read(path)
        if content is None:
            return None
        try:
            values = {name: content[name] for name in cls.__dataclass_fields__}
            return cls(**values | {"policy_path": path.parent / values["policy_path"]})
        except (KeyError, TypeError) as e:
            raise ConfigError(f"Expected the metadata of a best policy in {path}, got {e!r}.") from e


@dataclass(frozen=True)
class _State:
    """Everything that the next update depends on."""

    num_updates: int = 0
    num_episodes: int = 0
    weighted_sum: float = 0.0
    """The average without its correction: sum over episodes of (1 - alpha) alpha^age return."""
    best: float | None = None
    updates_since_best: int = 0
    training_step: int = -1

    def after(self, returns: Sequence[float], alpha: float, training_step: int) -> "_State":
        average = self.weighted_sum
        for value in returns:
            average = alpha * average + (1 - alpha) * value
        return replace(
            self,
            num_updates=self.num_updates + 1,
            num_episodes=self.num_episodes + len(returns),
            weighted_sum=average,
            updates_since_best=self.updates_since_best + 1,
            training_step=training_step,
        )

    def ema(self, alpha: float) -> float | None:
        return self.weighted_sum / (1 - alpha**self.num_episodes) if self.num_episodes else None


class BestReturnTracker:
    """Saves the policy whenever the moving average of its episodes' returns is the best so far.

    The average is exponential, over episodes in the order given, and corrected for its start as Adam's moments are
    (Kingma and Ba, arXiv 1412.6980, section 3): ``m = alpha m + (1 - alpha) r`` and ``ema = m / (1 - alpha^n)``, so
    that the first episode's average is its return. What a critic pays is not success: compare with held-out episodes.

    `folder/best_return/` then holds the policy and `metadata.json` (`BestPolicy`), which names it; `folder` also
    gets `best_return_state.json`, with which a tracker made anew for the same folder continues to the same numbers. A
    policy is written beside the old one, flushed to the disk, and becomes the best by the replacement of
    `metadata.json`: at any moment, also after a crash in `save_policy` or a kill, that names a whole policy. The best
    before it stays until the next, for whoever is reading it. One process (rank 0) may write to a folder.

    Args:
        folder: Of the run; made if it is missing.
        save_policy: Called with a path that does not exist; writes the policy there, as a file or a folder.
        exp_id: Name of the run.
        critic: The judge that pays the returns, as `Critic.describe` tells it; None if it is not a critic.
        alpha: Weight of the past, [0, 1).
        min_delta: By how much an average must exceed the best; >= 0, in units of return.
        patience: Updates without a new best after which `should_stop` is True; None for never.
        min_episodes: Episodes before a best is chosen: the first averages are of few episodes, and so are noisy.

    Raises:
        ConfigError: An argument does not fit, or the folder holds the returns of another critic or alpha.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> tracker = BestReturnTracker(folder, lambda path: path.write_text("weights"), exp_id="demo", alpha=0.5)
        >>> tracker.update([1.0], training_step=1), tracker.update([0.0], training_step=2)
        (True, False)
        >>> round(tracker.ema_return, 4), tracker.best.policy_path.read_text()
        (0.3333, 'weights')
    """

    def __init__(
        self,
        folder: str | Path,
        save_policy: Callable[[Path], object],
        *,
        exp_id: str,
        critic: CriticInfo | None = None,
        alpha: float = 0.99,
        min_delta: float = 0.0,
        patience: int | None = None,
        min_episodes: int = 1,
    ) -> None:
        _check(alpha, min_delta, patience, min_episodes)
        self._folder, self._save_policy, self._exp_id, self._critic = (
            Path(folder),
            save_policy,
            exp_id,
            critic,
        )
        self._alpha, self._min_delta = alpha, min_delta
        self._patience, self._min_episodes = patience, min_episodes
        self._fingerprint = critic.fingerprint if critic else None
        self.best = BestPolicy.read(self._folder)
        """The best policy so far, or None."""
        self._state = self._last_state()
        self._replayed_until = self._state.training_step
        self._best_folder.mkdir(parents=True, exist_ok=True)
        self._remove_leftovers(keep={self.best.policy_path} if self.best else set())

    @property
    def ema_return(self) -> float | None:
        """The average now; None before the first episode."""
        return self._state.ema(self._alpha)

    @property
    def should_stop(self) -> bool:
        """Whether `patience` updates in a row brought no new best."""
        return self._patience is not None and self._state.updates_since_best >= self._patience

    def update(
        self, episode_returns: Sequence[float], *, training_step: int, global_step: int | None = None
    ) -> bool:
        """Counts the episodes of one training step, and saves the policy if their average is the best.

        A trainer that went back to an older checkpoint repeats steps; those that were counted already, by the process
        before this one, are passed over. If `save_policy` raises, nothing is counted: the call can be repeated.

        Args:
            episode_returns: In the order in which they ended; none changes nothing.
            training_step: Rises from call to call; >= 0.
            global_step: By default `training_step`.

        Returns:
            Whether the policy was saved.

        Raises:
            ConfigError: A return is not finite, the step does not rise, or `save_policy` wrote nothing.
        """
        returns = [float(value) for value in episode_returns]
        if not all(map(math.isfinite, returns)):
            raise ConfigError(f"Expected finite returns at training step {training_step}, got {returns}.")
        if training_step <= self._replayed_until:
            logger.info("training step %d was counted before the restart", training_step)
            return False
        if training_step <= self._state.training_step or training_step < 0:
            raise ConfigError(
                f"Expected a training_step above {self._state.training_step}, the last, got {training_step}."
            )
        if not returns:
            return False
        state = self._state.after(returns, self._alpha, training_step)
        ema = state.ema(self._alpha)
        assert ema is not None
        floor = -math.inf if state.best is None else state.best + self._min_delta
        is_best = state.num_episodes >= self._min_episodes and ema > floor
        if is_best:
            state = replace(state, best=ema, updates_since_best=0)
            mean = math.fsum(returns) / len(returns)
            self._save(state, mean, training_step if global_step is None else global_step)
        write_json(self._state_path, {"version": _VERSION, **self._kind, "state": asdict(state)})
        self._state = state
        return is_best

    @property
    def _kind(self) -> dict[str, float | str | None]:
        """What makes averages comparable."""
        return {"alpha": self._alpha, "critic_fingerprint": self._fingerprint}

    @property
    def _best_folder(self) -> Path:
        return self._folder / "best_return"

    @property
    def _state_path(self) -> Path:
        return self._folder / "best_return_state.json"

    def _save(self, state: _State, current_return: float, global_step: int) -> None:
        policy = self._best_folder / f"policy-{state.training_step:08d}"
        partial = partial_path(policy)
        try:
            self._save_policy(partial)
            if not partial.exists():
                raise ConfigError(f"Expected save_policy to write to {partial}, but nothing is there.")
            sync_tree(partial)
            partial.rename(policy)
            sync_tree(self._best_folder, recursive=False)
        finally:
            _remove(partial)
        best = BestPolicy(
            policy_path=policy,
            ema_return=float(state.best or 0.0),
            current_return=current_return,
            training_step=state.training_step,
            global_step=global_step,
            exp_id=self._exp_id,
            critic=self._critic.name if self._critic else None,
            critic_fingerprint=self._fingerprint,
            timestamp=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        facts = asdict(best) | {"policy_path": policy.name, "version": _VERSION, **self._kind}
        write_json(self._best_folder / "metadata.json", facts | {"state": asdict(state)})
        sync_tree(self._best_folder, recursive=False)
        before, self.best = self.best, best
        self._remove_leftovers(keep={policy} | ({before.policy_path} if before else set()))

    def _last_state(self) -> _State:
        """That of the last update: a kill may come after a best was saved and before the state was."""
        paths = (self._state_path, self._best_folder / "metadata.json")
        contents = [(path, content) for path in paths if (content := _read(path)) is not None]
        for path, content in contents:
            self._check_kind(path, content)
        states = [_State(**content["state"]) for _, content in contents]
        return max(states, key=lambda state: state.num_updates, default=_State())

    def _check_kind(self, path: Path, content: Mapping[str, Any]) -> None:
        if content.get("version") != _VERSION:
            raise ConfigError(f"Expected version {_VERSION} in {path}, got {content.get('version')!r}.")
        for name, value in self._kind.items():
            if content.get(name) != value:
                raise ConfigError(
                    f"{path} holds returns with {name}={content.get(name)!r}, these have {value!r}: they can't be "
                    "compared. Choose another folder."
                )

    def _remove_leftovers(self, keep: set[Path]) -> None:
        for path in [*self._best_folder.glob("policy-*"), *self._best_folder.glob(".partial-*")]:
            if path not in keep:
                _remove(path)


def _check(alpha: float, min_delta: float, patience: int | None, min_episodes: int) -> None:
    if not 0 <= alpha < 1:
        raise ConfigError(f"Expected alpha in [0, 1), got {alpha!r}.")
    if not 0 <= min_delta < math.inf:
        raise ConfigError(f"Expected a finite min_delta >= 0, got {min_delta!r}.")
    if (patience is not None and patience < 1) or min_episodes < 1:
        raise ConfigError(f"Expected patience and min_episodes >= 1, got {patience!r} and {min_episodes!r}.")


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return read_json_object(path)
    except FileNotFoundError:
        return None


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
