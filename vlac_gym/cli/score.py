"""`vlac-gym score`: what a critic says of a video, as JSON, plot and annotated mp4."""

__all__ = ["Args", "run"]

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from vlac_gym.cli.progress import counting
from vlac_gym.critic import make_critic
from vlac_gym.critic.knowledge import OnMismatch
from vlac_gym.critic.registry import check_critic
from vlac_gym.critic.vlac.prompts import check_task, sample_references
from vlac_gym.errors import ConfigError
from vlac_gym.extras import needs
from vlac_gym.files.atomic import write_json
from vlac_gym.files.output_folder import claim_folder
from vlac_gym.frames.files import FrameFile, read_frames
from vlac_gym.reporting.critic_facts import critic_facts, critic_title
from vlac_gym.reporting.curves import save_curves_png
from vlac_gym.reporting.episode_picture import picture_of_score
from vlac_gym.reporting.mp4 import require_video_packages
from vlac_gym.reporting.video import write_video
from vlac_gym.rule.episode_score import EpisodeScore, check_score_options, score_episode
from vlac_gym.types import CriticInfo, Frame

with needs("The command line", "cli"):
    import tyro

_FORMAT = "vlac_gym.score/1"
_FOLDER_FPS = 10.0


@dataclass(frozen=True)
class Args:
    """Options of `vlac-gym score`."""

    source: Annotated[Path, tyro.conf.Positional]
    """A recording: a video, as `vlac-gym rollout` keeps in episode-000.raw.mp4, or a folder of pictures in natural
    order. Annotated videos and plots are refused."""
    task: str
    """Instruction text that the critic judges against."""
    critic: str
    """Critic spec, e.g. nano, transformers:PATH, openai:http://host:8000/v1#MODEL or http://host:8400; options go
    behind a question mark: transformers:PATH?device=cuda:0,reading=exact."""
    out: Path
    """Folder for score.json, score.png and score.mp4; new or empty."""
    reference: Path | None = None
    """Video or folder of a successful episode, shown to the critic as an example (in-context one-shot)."""
    reference_count: int = 9
    """Frames picked from the reference, 2 to 11."""
    on_critic_mismatch: OnMismatch = "raise"
    """raise: refuse a critic that does not know the task or the reference. warn: ask it all the same."""
    value_stride: int = 5
    """Frames between the two pictures of a pair."""
    check_stride: int = 1
    """Ask for success_prob at every so many frames, and at the last."""
    done_threshold: float = 0.9
    """success_prob that counts as done."""
    every: int = 1
    """Read every so many frames of source and reference, e.g. 6 to make 5 fps of 30."""
    fps: float | None = None
    """Pictures per second of the mp4; the source's by default, 10 for a folder."""
    video: bool = True
    """Write score.mp4."""


def run(args: Args) -> int:
    """Scores, writes the files and prints the numbers that sum them up."""
    _check(args)
    with claim_folder(args.out):
        source = read_frames(args.source, every=args.every)
        references = None
        if args.reference is not None:
            reference = read_frames(args.reference, every=args.every)
            references = sample_references(reference.frames, args.reference_count)
        score, info = _ask(args, source, references)
        _write(args, source, score, info, num_references=len(references or ()))
    _print_summary(args, score)
    return 0


def _check(args: Args) -> None:
    if args.fps is not None and not args.fps > 0:
        raise ConfigError(f"Expected --fps above 0, got {args.fps!r}.")
    check_score_options(
        value_stride=args.value_stride, check_stride=args.check_stride, done_threshold=args.done_threshold
    )
    check_task(args.task)
    check_critic(args.critic)
    require_video_packages()


def _ask(
    args: Args, source: FrameFile, references: Sequence[Frame] | None
) -> tuple[EpisodeScore, CriticInfo]:
    critic = make_critic(args.critic)
    try:
        with counting("scoring") as on_progress:
            score = score_episode(
                critic,
                source.frames,
                args.task,
                references=references,
                value_stride=args.value_stride,
                check_stride=args.check_stride,
                done_threshold=args.done_threshold,
                on_critic_mismatch=args.on_critic_mismatch,
                on_progress=on_progress,
            )
        return score, critic.describe()
    finally:
        critic.close()


def _write(
    args: Args, source: FrameFile, score: EpisodeScore, info: CriticInfo, *, num_references: int
) -> None:
    fps = args.fps or source.fps or _FOLDER_FPS
    write_json(
        args.out / "score.json",
        {
            "format": _FORMAT,
            "source": str(source.path),
            "every": args.every,
            "fps": fps,
            "reference": None if args.reference is None else str(args.reference),
            "num_references": num_references,
            "critic": critic_facts(info),
            **score.as_json(),
        },
    )
    parts = [f"critic {critic_title(info)}", source.path.name]
    parts.append(f"{num_references} reference frames" if num_references else "")
    subtitle = " · ".join(filter(None, parts))
    picture = picture_of_score(score, source.frames)
    save_curves_png(picture, args.out / "score.png", title=subtitle)
    if args.video:
        write_video(picture, args.out / "score.mp4", fps=fps, subtitle=subtitle)


def _print_summary(args: Args, score: EpisodeScore) -> None:
    done = score.first_done_frame
    rows = (
        ("frames", str(score.num_frames)),
        ("first done", "no frame" if done is None else f"frame {done}"),
        ("final success_prob", f"{score.success_prob[-1]:.3f}"),
        ("final value", f"{score.values[-1]:.3f}"),
        ("value-order correlation", _number(score.value_order_correlation)),
        ("negative rate", _number(score.negative_rate)),
    )
    for name, text in rows:
        print(f"{name:<24} {text}")
    print(f"wrote {args.out}/score.json, score.png{' and score.mp4' if args.video else ''}")


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"
