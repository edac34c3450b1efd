"""Whether the critic knows the episodes that it is about to judge: `CriticFit`."""

__all__ = ["CriticFit"]

from collections.abc import Mapping
from typing import Any

from vlac_gym.critic.base import BaseCritic
from vlac_gym.critic.knowledge import Mismatch, OnMismatch, find_mismatches, settle_mismatches
from vlac_gym.types import CriticInfo


class CriticFit:
    """Compares what a critic says it knows with each training episode that begins; asks it once what it is.

    Args:
        view: The camera of the critic's frames; None if that is not known.
        renderer: What draws them; None if that is not known.
        has_references: Whether the critic is shown references.
        calibration: What `load_calibration` takes, if thresholds come from there.
        on_mismatch: Refuse the critic, or log a warning once.

    Raises:
        ConfigError: No such calibration.
    """

    def __init__(
        self,
        *,
        view: str | None,
        renderer: str | None,
        has_references: bool,
        calibration: str | None,
        on_mismatch: OnMismatch,
    ) -> None:
        self._view = view
        self._renderer = renderer
        self._inputs = ("references",) if has_references else ()
        self._calibration = None
        if calibration is not None:
            from vlac_gym.rule.calibration import load_calibration

            self._calibration = load_calibration(calibration)
        self._on_mismatch = on_mismatch
        self._info: CriticInfo | None = None
        self._settled: set[object] = set()

    def check(self, critic: BaseCritic, task: str, info: Mapping[str, Any]) -> None:
        """Settles what the critic does not know of an episode.

        Args:
            critic: The same one every time.
            task: Instruction text of the episode.
            info: The env's info after reset; `task_suite` is read, if it is there.

        Raises:
            ConfigError: It does not know something that it must, or the calibration is another critic's.
            CriticError: A remote critic does not answer; nothing is settled, and the next call asks again.
        """
        suite = info.get("task_suite")
        if (task, suite) in self._settled:
            return
        if self._info is None:
            self._info = critic.identify()
        found = find_mismatches(
            self._info,
            task=task,
            task_suite=suite,
            view=self._view,
            renderer=self._renderer,
            inputs=self._inputs,
        )
        found += self._of_calibration(self._info)
        settle_mismatches(self._info, [m for m in found if m not in self._settled], self._on_mismatch)
        self._settled.update([(task, suite), *found])

    def _of_calibration(self, info: CriticInfo) -> list[Mismatch]:
        text = None if self._calibration is None else self._calibration.mismatch(info.fingerprint)
        return [] if text is None else [Mismatch(text, is_grave=True)]
