"""`vlac-gym collect`: records episodes of every kind: successes, failures, near misses and undone successes."""

__all__ = ["Args", "collect_with_progress", "run"]

import sys

from vlac_gym.data.collect import CollectedEpisode, CollectReport
from vlac_gym.data.collect_options import CollectOptions as Args
from vlac_gym.data.collect_options import run_collection
from vlac_gym.data.dataset import EpisodeDataset
from vlac_gym.extras import needs


def run(args: Args) -> int:
    """Runs the command; see `vlac-gym collect --help`. Returns 1 if the simulator lost episodes, else 0."""
    report = collect_with_progress(args)
    recorded = len(report.outcomes) - len(report.lost)
    if recorded or report.skipped:
        counts = EpisodeDataset.open(args.out).summary()
        width = max(map(len, counts))
        print("\n".join(f"{name:<{width}}  {count:>7}" for name, count in counts.items()))
    print(f"{recorded} episodes recorded now, {report.skipped} were there before: {args.out}")
    if report.lost:
        print(
            f"{len(report.lost)} lost; run the same command with --resume to try them again.", file=sys.stderr
        )
    return 1 if report.lost else 0


def collect_with_progress(options: Args) -> CollectReport:
    """Collects, with a progress bar on stderr where that is a terminal, and a line for each lost episode."""
    with needs("The command line", "cli"):
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    plans = options.plans()
    console = Console(stderr=True, highlight=False)
    note = TextColumn("{task.description}")
    columns = (TextColumn("collect"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), note)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task(
            "", total=len(plans), completed=sum(p.is_recorded(options.out) for p in plans)
        )

        def show(outcome: CollectedEpisode, done: int, total: int) -> None:
            if outcome.error:
                console.print(f"lost {outcome.episode_id}: {outcome.error}")
            progress.update(
                bar, completed=done, description=f"{outcome.num_steps} steps, {_verdict(outcome)}"
            )

        return run_collection(options, show)


def _verdict(outcome: CollectedEpisode) -> str:
    if outcome.error:
        return "lost"
    if outcome.ends_in_success:
        return "success"
    return "success, then undone" if outcome.succeeded else "no success"
