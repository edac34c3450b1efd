"""What `vlac-gym collect` takes: `CollectOptions`, `run_collection`."""

__all__ = ["CollectOptions", "check_collection", "run_collection"]

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vlac_gym.data.collect import CollectedEpisode, CollectReport, check_plans, collect
from vlac_gym.data.dataset import DATASET_FILES, EpisodeDataset
from vlac_gym.data.plans import DEFAULT_MIX, EpisodePlan, parse_mix, plan_episodes
from vlac_gym.data.recording import RecordSettings
from vlac_gym.files.config_file import CONFIG_FILE, write_config
from vlac_gym.files.output_folder import claim_folder
from vlac_gym.frames.codec import FrameEncoding
from vlac_gym.specs.ids import parse_ids
from vlac_gym.specs.options import split_spec


@dataclass(frozen=True, kw_only=True)
class CollectOptions:
    """Which episodes to collect, and where to write them."""

    out: Path
    """Dataset folder, new or empty, unless --resume."""
    resume: bool = False
    """Add to the episodes that --out holds, which are skipped; they must have been recorded with the same settings."""
    task_suite: tuple[str, ...] = ("libero_spatial",)
    """One or more suites; see `vlac-gym tasks`."""
    task_ids: str = "all"
    """Tasks of each suite: all, 0-4, 0,3,7."""
    init_states: str = "all"
    """Official initial states to start from: all, 0-39, 0,5."""
    policy: str = "expert"
    """What drives the arm: expert, clone:PATH, ws://HOST:8000?preset=openpi, …; its own episodes train the critic that
    judges it."""
    imperfect: str | None = None
    """Kinds of episodes with their weights: none=4,near_miss=2,drop=1,… (`none` is an honest attempt). Default: of
    every kind for the expert, `none` for other policies."""
    episodes: int = 20
    """Episodes of each task."""
    workers: int = 1
    """Processes, each with its own simulator."""
    seed: int = 0
    """Another seed makes other episodes; --resume with one adds to a folder."""
    cameras: tuple[str, ...] = ("agentview",)
    """Views to keep: agentview, wrist; with @diffuse, @direction, @specular or @shadow under another light."""
    image_size: int = 256
    """Height and width of the frames, pixels."""
    frame_stride_steps: int = 2
    """Keep a frame every so many env steps, and the last."""
    encoding: FrameEncoding = "jpeg"
    """jpeg, or png for exact frames."""
    quality: int = 95
    """JPEG quality, 1 to 100."""
    max_episode_steps: int | None = None
    """Step limit; default: the suite's."""
    action_noise: float = 0.0
    """Standard deviation of noise on the motion that is executed; the policy's own action is kept beside it, as the
    label for imitation. 0.1 makes demonstrations that show how to come back."""

    def settings(self) -> RecordSettings:
        """What to keep of each step."""
        names = [field.name for field in dataclasses.fields(RecordSettings)]
        return RecordSettings(**{name: getattr(self, name) for name in names})

    def plans(self) -> list[EpisodePlan]:
        """The episodes that these options ask for; starts no simulator.

        Raises:
            ConfigError: A suite, task, initial state, kind or weight does not fit.
        """
        from vlac_gym.envs.libero.tasks import list_tasks

        tasks = []
        for suite in self.task_suite:
            known = list_tasks(suite)
            for task_id in parse_ids(self.task_ids, len(known), f"task ids of {suite}"):
                init_states = parse_ids(
                    self.init_states, known[task_id].num_init_states, f"initial states of {suite}/{task_id}"
                )
                tasks.append((suite, task_id, init_states))
        return plan_episodes(tasks, self.episodes, parse_mix(self._mix()), policy=self.policy, seed=self.seed)

    def _mix(self) -> str:
        if self.imperfect is not None:
            return self.imperfect
        return DEFAULT_MIX if split_spec(self.policy)[0] == "expert" else "none"


def check_collection(options: CollectOptions) -> None:
    """Checks all that can be checked before a simulator starts.

    Raises:
        ConfigError: An option does not fit.
    """
    check_plans(options.plans(), options.settings(), options.workers)


def run_collection(
    options: CollectOptions, on_progress: Callable[[CollectedEpisode, int, int], None] | None = None
) -> CollectReport:
    """Collects what the options ask for and writes the folder's index; nobody else may write there meanwhile.

    Args:
        options: What to collect.
        on_progress: Called after each episode with its outcome, how many are done and how many there are.

    Raises:
        ConfigError: An option does not fit, or `out` is in use; raised before a simulator starts.
        SimulatorError: A worker process died; what was finished is kept.
    """
    settings, plans = options.settings(), options.plans()
    with claim_folder(options.out, resume=options.resume, ours=(*DATASET_FILES, CONFIG_FILE)):
        return _collect(options, settings, plans, on_progress)


def _collect(
    options: CollectOptions,
    settings: RecordSettings,
    plans: list[EpisodePlan],
    on_progress: Callable[[CollectedEpisode, int, int], None] | None,
) -> CollectReport:
    done = sum(plan.is_recorded(options.out) for plan in plans)
    has_config = False

    def count(outcome: CollectedEpisode) -> None:
        nonlocal done, has_config
        done += 1
        if not outcome.error and not has_config:  # a collection that recorded nothing leaves no trace
            write_config(options.out, options)
            has_config = True
        if on_progress is not None:
            on_progress(outcome, done, len(plans))

    report = collect(plans, options.out, settings, workers=options.workers, on_outcome=count)
    if len(report.lost) < len(plans):
        EpisodeDataset.open(options.out).write_manifest()
    return report
