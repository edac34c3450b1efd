"""`--tensorboard` and `--wandb`: a command's numbers on dashboards too: `check_dashboards`, `run_metrics`."""

__all__ = ["check_dashboards", "run_metrics"]

import dataclasses
import importlib
import importlib.util
from pathlib import Path
from typing import Any

from vlac_gym.errors import ConfigError, DependencyNotInstalled
from vlac_gym.extras import needs
from vlac_gym.metrics.writer import MetricsSink, MetricsWriter, TensorBoardSink, WandbSink


def check_dashboards(*, tensorboard: bool, wandb: str | None) -> None:
    """Whether the packages are there, and W&B takes a run; asks for its key on a terminal if it has none.

    Raises:
        DependencyNotInstalled: One is missing.
        ConfigError: W&B has no key, and may not keep the run on this machine.
    """
    for name, is_wanted in (("tensorboardX", tensorboard), ("wandb", wandb is not None)):
        if is_wanted and importlib.util.find_spec(name) is None:
            raise DependencyNotInstalled(
                f"--{name.lower().rstrip('x')} needs {name}. Run: pip install {name}"
            )
    if wandb is not None:
        _check_login()


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
        sinks.append(WandbSink(project=wandb, name=folder.name, config=config, dir=str(folder.resolve())))
    return MetricsWriter(folder, sinks) if sinks else None


def _check_login() -> None:
    with needs("--wandb", get="Run: pip install wandb"):
        wandb: Any = importlib.import_module("wandb")
    if wandb.setup().settings.mode not in ("online", "shared"):
        return
    try:
        wandb.login()
    except wandb.Error as e:
        raise ConfigError(
            f"Expected to be logged in at W&B for --wandb: {e} To keep the run in its folder, set WANDB_MODE=offline."
        ) from e
