"""Training runs that differ in one thing, each with several seeds, in one picture: `TrainingArm`, `draw_arms`."""

__all__ = ["TrainingArm", "draw_arms"]

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vlac_gym.errors import ConfigError
from vlac_gym.extras import needs
from vlac_gym.reporting.training_run import LearningCurves, read_curves

_COLOURS = ("#15803d", "#1d4ed8", "#b45309", "#7c3aed", "#be123c", "#0e7490", "#52525b", "#a16207")


@dataclass(frozen=True)
class TrainingArm:
    """Runs with one reward, which differ in their seed.

    Attributes:
        name: What the picture calls it.
        runs: Each run's metrics; one or more.
    """

    name: str
    runs: tuple[LearningCurves, ...]

    @classmethod
    def read(cls, name: str, folders: Sequence[Path]) -> "TrainingArm":
        """The arm of these folders of `examples/train_ppo.py`.

        Raises:
            ConfigError: There is no folder, or one holds no metrics.
        """
        if not folders:
            raise ConfigError(f"Expected the folder of one run or more for the arm {name!r}, got none.")
        return cls(name, tuple(read_curves(folder) for folder in folders))

    def gains(self) -> list[float]:
        """Each run's held-out success at its last evaluation minus that at its first, [-1, 1].

        Raises:
            ConfigError: A run was evaluated less than twice.
        """
        found = []
        for run in self.runs:
            _, rates = run.of("eval/success_rate")
            if len(rates) < 2:
                raise ConfigError(
                    f"Expected two evaluations or more of each run of {self.name!r}, got {len(rates)} of one. "
                    "Train it with --eval-every."
                )
            found.append(rates[-1] - rates[0])
        return found


def draw_arms(arms: Sequence[TrainingArm], title: str = "") -> bytes:
    """A picture (PNG) of held-out success and of the training episodes' over env steps, a line per run.

    Arms have a colour each, the first of their runs the legend's line.

    Raises:
        ConfigError: No arms, or more than there are colours (8).
        DependencyNotInstalled: matplotlib is missing.
    """
    if not 1 <= len(arms) <= len(_COLOURS):
        raise ConfigError(f"Expected 1 to {len(_COLOURS)} arms in a picture, got {len(arms)}.")
    with needs("A picture", "video"):
        from matplotlib.figure import Figure

    figure = Figure(figsize=(11.0, 4.6), layout="constrained")
    held_out, training = figure.subplots(1, 2, sharey=True)
    for arm, colour in zip(arms, _COLOURS):
        for number, run in enumerate(arm.runs):
            label = None if number else f"{arm.name}, runs: {len(arm.runs)}"
            held_out.plot(*run.of("eval/success_rate"), "o-", color=colour, markersize=4, label=label)
            training.plot(*run.of("env/success_rate"), color=colour, linewidth=1)
    held_out.set(title="held-out starts, no noise", ylabel="simulator success", ylim=(-0.03, 1.03))
    training.set(title="training episodes, with noise")
    for axes in (held_out, training):
        axes.set(xlabel="env steps")
        axes.grid(color="#e5e7eb", linewidth=0.7)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    held_out.legend(frameon=False, fontsize=8.5, loc="upper left")
    figure.suptitle(title, fontsize=11)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
