"""Report cards of a critic before and after it was trained on: `check_held_out`, `compare_on_held_out`."""

__all__ = ["check_held_out", "compare_on_held_out"]

from pathlib import Path

from vlac_gym.cli.progress import counting
from vlac_gym.critic import make_critic
from vlac_gym.critic.nano.factory import CHECKPOINT, DEFAULT_OPTIONS
from vlac_gym.data.dataset import EpisodeDataset
from vlac_gym.report_card.card import CardConfig, ReportCard, make_card
from vlac_gym.report_card.comparison import Change, write_comparison
from vlac_gym.report_card.page import write_card
from vlac_gym.reporting.mp4 import require_video_packages

_READING = ",".join(f"{name}={value}" for name, value in DEFAULT_OPTIONS.items())  # as the shipped critic's


def check_held_out(folder: Path) -> None:
    """Checks all that can be checked before the training.

    Raises:
        ConfigError: It is no folder of episodes.
        DependencyNotInstalled: A package that pages need is missing.
    """
    EpisodeDataset.open(folder)
    require_video_packages(videos=False)


def compare_on_held_out(
    folder: Path, out: Path, checkpoint: Path, start_from: str | None, device: str | None
) -> list[Change]:
    """Writes `card/`, and where the critic began with a checkpoint, `card_before/` and their comparison.

    Returns:
        What changed; nothing without a card before.
    """
    dataset = EpisodeDataset.open(folder)
    before = None
    if start_from is not None:
        earlier = CHECKPOINT if start_from == "nano" else Path(start_from)
        before = _card(earlier, dataset, out / "card_before", device, "before")
    after = _card(checkpoint, dataset, out / "card", device, "after")
    return [] if before is None else write_comparison(before.content, after.content, out)


def _card(checkpoint: Path, dataset: EpisodeDataset, out: Path, device: str | None, what: str) -> ReportCard:
    spec = f"transformers:{checkpoint}?{_READING}"
    critic = make_critic(spec, device=device) if device is not None else make_critic(spec)
    done = 0
    try:
        with counting(f"judging, {what}") as on_progress:

            def advance(_: object) -> None:
                nonlocal done
                done += 1
                on_progress(done, len(dataset))

            config = CardConfig(probe_episodes=0, cost_repeats=0)
            card = make_card(critic, spec, dataset, config, advance, on_critic_mismatch="warn")
    finally:
        critic.close()
    write_card(card, out)
    return card
