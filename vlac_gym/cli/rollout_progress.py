"""The progress bar of `vlac-gym rollout`: `RolloutProgress`."""

__all__ = ["RolloutProgress"]

from types import TracebackType

from vlac_gym.extras import needs
from vlac_gym.reporting.trace import EpisodeTrace


class RolloutProgress:
    """A bar over the steps of the running episode, and one line for each finished one, on stderr.

    Args:
        num_episodes: Episodes in the run.
        max_episode_steps: Step limit of an episode: the bar's end.

    Raises:
        DependencyNotInstalled: rich is missing.
    """

    def __init__(self, num_episodes: int, max_episode_steps: int) -> None:
        with needs("The command line", "cli"):
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
        self._num_episodes = num_episodes
        self._limit = max_episode_steps
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=32),
            MofNCompleteColumn(),
            TextColumn("steps"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=self._console,
            transient=True,
        )
        self._name = ""
        self._task = self._bar.add_task("starting", total=max_episode_steps, note="", start=False)

    def __enter__(self) -> "RolloutProgress":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._bar.stop()

    def begin_episode(self, number: int) -> None:
        """Starts the bar again for episode `number`."""
        self._name = f"episode {number + 1}/{self._num_episodes}"
        self._bar.reset(self._task, total=self._limit, description=self._name, note="starting the simulator")

    def step(self, step: int, success_prob: float | None) -> None:
        """Moves to `step`."""
        note = "" if success_prob is None else f"success_prob {success_prob:.2f}"
        self._bar.update(self._task, completed=step, note=note)

    def write_files(self) -> None:
        """Says that the episode is over and its files are being written."""
        self._bar.update(self._task, note="writing video and plot")

    def end_episode(self, trace: EpisodeTrace) -> None:
        """Prints the finished episode's line."""
        done, success = trace.critic_done_step, trace.sim_success_step
        critic = "critic not asked" if trace.mode == "eval" else f"critic done {_at(done)}"
        self._console.print(
            f"{self._name}: {trace.num_steps} steps in {trace.wall_s:.1f} s, return {trace.episode_return:.2f}, "
            f"{critic}, simulator success {_at(success)}"
        )


def _at(step: int | None) -> str:
    return "never" if step is None else f"at step {step}"
