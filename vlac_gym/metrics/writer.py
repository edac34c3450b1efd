"""Metrics over training steps, on disk and on dashboards: `MetricsWriter`, `TensorBoardSink`, `WandbSink`.

Names are those of `vlac_gym.metrics.episodes` and `CurriculumManager.metrics`, or any other of the form ``group/name``.
"""

__all__ = ["MetricsSink", "MetricsWriter", "TensorBoardSink", "WandbSink"]

import importlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, SupportsFloat

from vlac_gym.errors import ConfigError
from vlac_gym.extras import needs
from vlac_gym.files.atomic import write_text


class MetricsSink(Protocol):
    """Where a `MetricsWriter` sends numbers besides its file."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Takes the numbers of a step; all known ones, None left out."""
        ...

    def close(self) -> None:
        """Flushes; called once."""
        ...


class MetricsWriter:
    """Appends metrics to `folder/metrics.jsonl`, one line per call, and hands them to sinks.

    A line is ``{"step": 100, "time_s": 1700000000.0, "metrics": {"env/success_rate": 0.5, …}}``, with `time_s`
    in seconds since 1970. A metric that is None (no data) is null there and left out of the sinks; NaN and
    infinities, which JSON lacks, are null too, and go to the sinks as they are. Each line is flushed when it is
    written; a folder that has a file already is continued.

    Args:
        folder: Made if it is missing.
        sinks: Closed together with the writer.
        last_step: Lines after this step are dropped from a file that is continued: a run that goes on from a checkpoint
            writes them anew. None keeps all.

    Example:
        >>> import tempfile
        >>> from vlac_gym.metrics.episodes import EpisodeMetrics
        >>> metrics = EpisodeMetrics()
        >>> metrics.add(num_steps=100, episode_return=1.0, sim_success=True)
        >>> folder = tempfile.mkdtemp()
        >>> with MetricsWriter(folder) as writer:
        ...     writer.write(1, metrics.compute() | {"train/loss": 0.25})
        >>> line = json.loads((Path(folder) / "metrics.jsonl").read_text())
        >>> line["step"], line["metrics"]["env/episode_length"], line["metrics"]["critic/latency_ms"]
        (1, 100.0, None)
    """

    def __init__(
        self, folder: str | Path, sinks: Sequence[MetricsSink] = (), *, last_step: int | None = None
    ) -> None:
        path = Path(folder) / "metrics.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        if last_step is not None and path.exists():
            _drop_after(path, last_step)
        self._file = path.open("a", encoding="utf-8")
        self._sinks = tuple(sinks)

    def write(self, step: int, metrics: Mapping[str, SupportsFloat | None]) -> None:
        """Writes the metrics of a step.

        Args:
            step: The x axis; >= 0.
            metrics: Name, as ``group/name``, to number (also of numpy or torch) or None.

        Raises:
            ConfigError: A name, a value or `step` does not fit, or the writer is closed; nothing was written.
        """
        if isinstance(step, bool) or step != int(step) or step < 0:
            raise ConfigError(f"Expected step as an int >= 0, got {step!r}.")
        if self._file.closed:
            raise ConfigError("This metrics writer is closed. Make a new one.")
        values = {name: _number(name, value) for name, value in metrics.items()}
        shown = {k: v if v is not None and math.isfinite(v) else None for k, v in values.items()}
        line = json.dumps({"step": int(step), "time_s": time.time(), "metrics": shown}, allow_nan=False)
        self._file.write(line + "\n")
        self._file.flush()
        known = {name: value for name, value in values.items() if value is not None}
        for sink in self._sinks:
            sink.write(int(step), known)

    def close(self) -> None:
        """Closes the file and the sinks; safe to call twice."""
        if not self._file.closed:
            self._file.close()
            for sink in self._sinks:
                sink.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class TensorBoardSink:
    """Writes scalars for TensorBoard.

    Args:
        target: A folder for event files, which needs tensorboardX, or any object with `add_scalar` and `close`,
            such as torch's own `SummaryWriter`.

    Raises:
        DependencyNotInstalled: tensorboardX is missing.
    """

    def __init__(self, target: Any) -> None:
        if isinstance(target, str | Path):
            package = _package("tensorboardX", "A TensorBoard folder", "or pass torch's SummaryWriter")
            target = package.SummaryWriter(logdir=str(target))
        self._writer = target

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Adds one scalar per metric."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flushes and closes the event file."""
        self._writer.close()


class WandbSink:
    """Logs to a Weights & Biases run.

    Args:
        run: A run, which its owner ends, or None to start one, which `close` ends.
        **options: Of `wandb.init`, for a new run: `project`, `name`, `config`, `mode`, …

    Raises:
        ConfigError: Options for a run that exists, or W&B does not start the run.
        DependencyNotInstalled: wandb is missing.
    """

    def __init__(self, run: Any = None, **options: Any) -> None:
        if run is not None and options:
            raise ConfigError(f"Expected no options for a run that exists, got {sorted(options)}.")
        self._is_own = run is None
        self._run = run if run is not None else _start_wandb(options)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Logs all metrics of the step at once."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """Ends the run if it was started here."""
        if self._is_own:
            self._run.finish()


def _start_wandb(options: Mapping[str, Any]) -> Any:
    wandb = _package("wandb", "A wandb run")
    try:
        return wandb.init(**options)
    except wandb.Error as e:
        raise ConfigError(
            f"W&B did not start a run: {e} To do without its server, set WANDB_MODE=offline."
        ) from e


def _drop_after(path: Path, last_step: int) -> None:
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= last_step]
    write_text(path, "".join(kept))


def _number(name: str, value: SupportsFloat | None) -> float | None:
    group, _, rest = name.partition("/")
    if not group or not rest:
        raise ConfigError(f"Expected metric names as 'group/name', got {name!r}.")
    if value is None:
        return None
    try:
        return float(value)
    except (TypeError, ValueError) as e:
        raise ConfigError(f"Expected a number or None for {name!r}, got {value!r}.") from e


def _package(name: str, what: str, otherwise: str = "") -> Any:
    hint = f", {otherwise}" if otherwise else ""
    with needs(what, get=f"Run: pip install {name}{hint}"):
        return importlib.import_module(name)
