"""`vlac-gym attack`: filtered imitation against a critic, in LIBERO's processes or in worlds on a GPU."""

__all__ = ["Args", "run"]

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlac_gym.attack.budget import SearchBudget
from vlac_gym.attack.imitation import IMITATION_CAMERAS, ImitationSearch, SearchSettings
from vlac_gym.attack.kept_episodes import KEPT_FOLDER
from vlac_gym.attack.same_settings import SETTINGS_FILE, check_same_settings
from vlac_gym.attack.search_envs import SearchEnvs, Task, libero_envs, scene_envs
from vlac_gym.checks import check_choice, check_int
from vlac_gym.cli.progress import counting
from vlac_gym.critic import make_critic
from vlac_gym.critic.registry import check_critic
from vlac_gym.critic.wrapper import adapted
from vlac_gym.data.dataset import EpisodeDataset
from vlac_gym.envs.libero.tasks import get_task
from vlac_gym.envs.warp.scene_files import count_starts, find_scene_folders
from vlac_gym.errors import ConfigError
from vlac_gym.extras import needs
from vlac_gym.files.config_file import CONFIG_FILE, write_config
from vlac_gym.files.digest import file_digest
from vlac_gym.files.output_folder import claim_folder
from vlac_gym.reporting.training_run import read_curves
from vlac_gym.rule.calibration import load_calibration
from vlac_gym.rule.reward import TrainingRule
from vlac_gym.specs.ids import parse_ids
from vlac_gym.wrappers.rule_setup import resolve_rule

_FILES = (SETTINGS_FILE, CONFIG_FILE, "metrics.jsonl", "round-*", "policy", KEPT_FOLDER)


@dataclass(frozen=True, kw_only=True)
class Args(SearchBudget):
    """Whom to attack, where, how long, and where to write."""

    critic: str
    """nano?device=cuda, transformers:PATH, http://host:8400, …"""
    policy: Path
    """Folder of the policy to begin with: RUN/policy of `vlac-gym clone` or of examples/train_ppo.py."""
    out: Path
    """Folder of the attack; new or empty, unless --resume. `report-card --attack-runs` reads it."""
    resume: bool = False
    """Go on after the last round in OUT, with the same settings; their number may rise."""
    tasks: tuple[str, ...] = ()
    """SUITE:TASK_ID of each task; default: all that the policy knows."""
    init_states: str = "all"
    """Initial states of each task: all, 0-39, 0,3,7."""
    scenes: Path | None = None
    """Play in worlds on the GPU, of what `vlac-gym export-scenes` wrote there (vlac-gym[warp]), instead of LIBERO."""
    num_envs: int = 1
    """Simulator processes; of --scenes worlds, a multiple of the number of tasks."""
    rounds: int = 4
    episodes_per_round: int = 512
    steps_per_round: int = 200
    calibration: str | None = None
    """Thresholds: a report card's card.json, or `nano`; the options below win."""
    done_threshold: float | None = None
    """Success probability from which a check counts as done."""
    done_patience: int | None = None
    """Checks in a row that count as done and end an episode."""
    check_interval: int | None = None
    """Env steps between checks."""
    min_steps: int | None = None
    """No end before this env step."""
    value_stride: int = 5
    """Env steps between the frames that a failure is paid by."""
    camera: str = "agentview"
    """What the critic is shown: agentview or wrist."""
    image_size: int = 256
    """Side of the pictures in pixels."""
    keep_episodes: bool = False
    """Write wrong stops and the simulator's successes into OUT/kept, recorded episodes for train-critic."""
    seed: int = 0
    """Of starts, noise and batches."""
    device: str | None = None
    """Of policy and worlds: cuda, cuda:1, cpu; the first GPU by default. The critic's is in its spec."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("camera", self.camera, IMITATION_CAMERAS)
        check_int("num_envs", self.num_envs, minimum=1)
        check_int("seed", self.seed, minimum=0)

    def budget(self) -> SearchBudget:
        """Episodes and steps alone."""
        names = [field.name for field in dataclasses.fields(SearchBudget)]
        return SearchBudget(**{name: getattr(self, name) for name in names})

    def rule(self) -> TrainingRule:
        """By which the critic ends and pays episodes."""
        given = {
            "done_threshold": self.done_threshold,
            "done_patience": self.done_patience,
            "done_interval": self.check_interval,
            "min_steps": self.min_steps,
            "value_stride": self.value_stride,
        }
        chosen = {name: value for name, value in given.items() if value is not None}
        return resolve_rule("vlac", self.calibration, chosen, self.step_limit)


def run(args: Args) -> int:
    """Runs the command; see `vlac-gym attack --help`."""
    with needs("Filtered imitation", "vlac"):
        from vlac_gym.clone.policy import load_policy
        from vlac_gym.training.device import pick_device
    check_critic(args.critic)
    rule, policy, device = args.rule(), load_policy(args.policy), str(pick_device(args.device))
    if args.image_size < policy.image_size:
        raise ConfigError(
            f"Expected --image-size of {policy.image_size} or more, as the policy in {args.policy} sees, got "
            f"{args.image_size}."
        )
    tasks = _tasks(args, policy.tasks)
    envs = _envs(args, tasks, tuple(dict.fromkeys((args.camera, *policy.cameras))), device)
    with claim_folder(args.out, resume=args.resume, ours=_FILES):
        critic = adapted(make_critic(args.critic))
        try:
            _check_calibration(args, fingerprint := critic.describe().fingerprint)
            check_same_settings(args.out, _facts(args, fingerprint, tasks, rule))
            write_config(args.out, args)
            how = SearchSettings(
                rule=rule, budget=args.budget(), frame=f"{args.camera}_image", seed=args.seed, device=device,
                keeps_episodes=args.keep_episodes,
            )  # fmt: skip
            search = ImitationSearch(args.out, args.policy, envs, critic, how)
            with counting("attacking") as on_progress:
                search.run(lambda what, done, total: on_progress(done, total))
        finally:
            critic.close()
    _report(args.out)
    return 0


def _tasks(args: Args, known: Sequence[str]) -> tuple[Task, ...]:
    """Each task with its initial states."""
    names = args.tasks or tuple(known)
    if unknown := sorted(set(names) - set(known)):
        raise ConfigError(
            f"Expected tasks that the policy in {args.policy} knows ({', '.join(known)}), got {', '.join(unknown)}."
        )
    if len(set(names)) < len(names):
        raise ConfigError(f"Expected each task once, got {', '.join(names)}.")
    parted = [(suite, int(number)) for suite, _, number in (name.rpartition(":") for name in names)]
    return tuple(
        (suite, task_id, tuple(parse_ids(args.init_states, count, f"initial states of {suite}:{task_id}")))
        for (suite, task_id), count in zip(parted, _counts(args, parted), strict=True)
    )


def _counts(args: Args, tasks: Sequence[tuple[str, int]]) -> list[int]:
    """Initial states of each task."""
    if args.scenes is None:
        return [get_task(suite, task_id).num_init_states for suite, task_id in tasks]
    folders = find_scene_folders(args.scenes, tasks)
    return [count_starts(folders[task]) for task in tasks]


def _envs(args: Args, tasks: Sequence[Task], cameras: Sequence[str], device: str) -> SearchEnvs:
    options: dict[str, Any] = {
        "cameras": cameras,
        "image_size": args.image_size,
        "step_limit": args.step_limit,
    }
    if args.scenes is None:
        return libero_envs(tasks, args.num_envs, **options)
    warp_device = "cuda:0" if device == "cuda" else device
    return scene_envs(args.scenes, tasks, args.num_envs, device=warp_device, **options)


def _check_calibration(args: Args, fingerprint: str) -> None:
    """Refuses another critic's thresholds, as the reward wrappers do."""
    text = None if args.calibration is None else load_calibration(args.calibration).mismatch(fingerprint)
    if text is not None:
        raise ConfigError(
            f"Expected the calibration of {args.critic}, got {args.calibration}: {text}. Make this critic's report "
            "card, or give its rule by options."
        )


def _facts(args: Args, fingerprint: str, tasks: Sequence[Task], rule: TrainingRule) -> dict[str, Any]:
    """What the search's numbers follow from; more rounds only go on."""
    budget = dataclasses.asdict(args.budget())
    del budget["rounds"]
    facts = {
        "critic_fingerprint": fingerprint,
        "policy_sha256": file_digest(args.policy / "policy.pt"),
        "simulator": "LIBERO" if args.scenes is None else "mujoco-warp",
        "tasks": tasks,
        "budget": budget,
        "rule": dataclasses.asdict(rule),
        **{name: getattr(args, name) for name in ("camera", "image_size", "seed", "keep_episodes")},
    }
    plain: dict[str, Any] = json.loads(json.dumps(facts))
    return plain


def _report(out: Path) -> None:
    for number, row in enumerate(read_curves(out).metrics, start=1):
        wrong, played, paid = (
            row["critic/wrong_stops"],
            row["rollout/episodes"],
            row["critic/reward_of_failure"],
        )
        print(
            f"round {number}: {wrong or 0:.0f} wrong stops of {played:.0f} episodes, failures paid "
            + ("–" if paid is None else f"{paid:.2f}")
        )
    if (out / KEPT_FOLDER).exists():
        kept = EpisodeDataset.open(out / KEPT_FOLDER)
        kept.write_manifest()
        right = sum(entry.succeeded for entry in kept.entries)
        print(f"{len(kept)} episodes recorded, {right} of them successes: {kept.root}")
    print(f"{out}\nShow it on a card with: vlac-gym report-card --attack-runs {out} …")
