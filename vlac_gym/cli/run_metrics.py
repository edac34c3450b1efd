"""`--tensorboard` and `--wandb`: a command's numbers on dashboards too: `check_dashboards`, `run_metrics`."""

__all__ = ["check_dashboards", "run_metrics"]

import dataclasses
import importlib.util
from pathlib import Path
from typing import Any

from vlac_gym.errors import DependencyNotInstalled
from vlac_gym.metrics.writer import MetricsSink, MetricsWriter, TensorBoardSink, WandbSink


def check_dashboards(*, tensorboard: bool, wandb: str | None) -> None:
    """Whether the packages are there.

    Raises:
        DependencyNotInstalled: One is missing.
    """
    for name, is_wanted in (("tensorboardX", tensorboard), ("wandb", wandb is not None)):
        if is_wanted and importlib.util.find_spec(name) is None:
            raise DependencyNotInstalled(
                f"--{name.lower().rstrip('x')} needs {name}. Run: pip install {name}"
            )


def run_metrics(folder: Path, options: Any, *, tensorboard: bool, wandb: str | None) -> MetricsWriter | None:
    """A writer for the run's folder, or None if no dashboard was asked for.

    Args:
        folder: Gets `metrics.jsonl`, and the folders `tensorboard` and `wandb` as asked for.
        options: The command's dataclass; W&B shows it as the run's config.
        tensorboard: Whether to write for TensorBoard.
        wandb: Project at Weights & Biases; `WANDB_MODE=offline` in the environment keeps the run in the folder.
    """
    sinks: list[MetricsSink] = []
    if tensorboard:
        sinks.append(TensorBoardSink(folder / "tensorboard"))
    if wandb is not None:
        config = {
            name: str(value) if isinstance(value, Path) else value
            for name, value in dataclasses.asdict(options).items()
        }
        sinks.append(WandbSink(project=wandb, name=folder.name, config=config, dir=str(folder)))
    return MetricsWriter(folder, sinks) if sinks else None
