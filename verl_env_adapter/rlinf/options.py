"""What RLinf's env section says, checked: `RolloutOptions`, `read_options`, `check_config`. No RLinf, no torch."""

__all__ = [
    "BLOCK",
    "EXTENSION_ADVICE",
    "EXTENSION_VARIABLE",
    "MASKED_ADVANTAGES",
    "POLICY",
    "SUITE",
    "Learn",
    "RolloutOptions",
    "check_config",
    "read_options",
]

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from verl_env_adapter.common.settings import AdapterSettings, Phase, parse_settings, to_plain
from vlac_gym.checks import check_choice, check_int
from vlac_gym.errors import ConfigError
from vlac_gym.types import Mode

BLOCK = "vlac_gym"
"""Key of the settings in ``env.train`` and ``env.eval``."""

SUITE = "vlac_gym"
"""``task_suite_name`` of our env. No such suite exists, so that RLinf's own env refuses to start."""

POLICY = "vlac_clone"
"""``actor.model.model_type`` of `verl_env_adapter.rlinf.clone_model.CloneModel`."""

Learn = Literal["all", "offset"]
"""Its ``learn``."""

MASKED_ADVANTAGES = ("gae", "grpo")
"""``algorithm.adv_type`` with which RLinf's actor makes a `loss_mask`; replay buffers, SAC's for one, have none."""

EXTENSION_VARIABLE = "RLINF_EXT_MODULE"
"""Environment variable that names the module whose `register` RLinf calls in its workers."""

EXTENSION_ADVICE = (
    "Export RLINF_EXT_MODULE=verl_env_adapter.rlinf.plugin, or a module of yours whose register calls that one's, "
    "before Ray starts, on every node."
)


@dataclass(frozen=True, kw_only=True)
class RolloutOptions:
    """One phase's env.

    Attributes:
        settings: The shared block, with RLinf's step limit and task filter in it.
        mode: The wrapper's mode in this phase.
        is_eval: RLinf's evaluation?
        auto_reset: Start the next episode in the chunk that ended one.
        ignore_terminations: Report only the step limit as an end.
        max_episode_steps: The step limit.
        group_size: Envs that start alike.
        seed: RLinf's seed, before a worker adds its number.
        is_ordered: Walk a shuffled list of starts in training.
        fixed_id: Always this start; None for no such wish.
        masks_unjudged: RLinf's loss can leave out episodes that nobody judged.
    """

    settings: AdapterSettings
    mode: Mode
    is_eval: bool
    auto_reset: bool
    ignore_terminations: bool
    max_episode_steps: int
    group_size: int
    seed: int
    is_ordered: bool
    fixed_id: int | None
    masks_unjudged: bool


def read_options(cfg: Any) -> RolloutOptions:
    """Reads ``env.train`` or ``env.eval``; the config is not changed.

    Raises:
        ConfigError: A key of the block or of RLinf's that does not fit.
    """
    plain = to_plain(cfg)
    phase = _phase(cfg, plain)
    where = f"env.{'eval' if phase == 'validate' else 'train'}"
    _check_reward_keys(plain, where)
    if plain.get("task_suite_name") != SUITE:
        raise ConfigError(
            f"Expected {where}.task_suite_name {SUITE!r}, which only this package's env knows, got "
            f"{plain.get('task_suite_name')!r}. Say the suite in {where}.{BLOCK}.env.suite: with a name that RLinf "
            "knows, a missing extension would train on the simulator's reward."
        )
    limit = plain.get("max_episode_steps")
    check_int(f"{where}.max_episode_steps", limit, minimum=1)
    settings = _merged(parse_settings(plain.get(BLOCK) or {}), plain, limit, where)
    # Groups only make sense where RLinf says which start comes next.
    group_size = int(plain.get("group_size") or 1) if plain.get("use_fixed_reset_state_ids", True) else 1
    fixed_id = plain.get("specific_reset_id")
    auto_reset = bool(plain.get("auto_reset", False))
    ignore_terminations = bool(plain.get("ignore_terminations", False))
    makes_mask = not (auto_reset or ignore_terminations) and _advantages(cfg) in MASKED_ADVANTAGES
    return RolloutOptions(
        settings=settings,
        mode=settings.mode_in(phase),
        is_eval=phase == "validate",
        auto_reset=auto_reset,
        ignore_terminations=ignore_terminations,
        max_episode_steps=limit,
        group_size=group_size,
        seed=int(plain.get("seed") or 0),
        is_ordered=bool(plain.get("use_ordered_reset_state_ids", False)),
        fixed_id=None if fixed_id is None else int(fixed_id),
        masks_unjudged=phase == "train" and makes_mask,
    )


def check_config(cfg: Any, environ: Mapping[str, str] = os.environ) -> None:
    """Checks RLinf's whole config on the driver, before anything starts.

    Args:
        cfg: As RLinf's entry script gets it.
        environ: The environment that the workers inherit.

    Raises:
        ConfigError: The extension is not named, or a key does not fit.
    """
    if not environ.get(EXTENSION_VARIABLE):
        raise ConfigError(f"Expected {EXTENSION_VARIABLE} in the environment, got none. {EXTENSION_ADVICE}")
    reward = to_plain(cfg.get("reward") or {})
    if reward.get("use_reward_model"):
        raise ConfigError(
            "Expected reward.use_reward_model: false. RLinf adds such a model's score to every step of a chunk, "
            "leaves terminations alone and gives up the overlap of stages. For a critic on a card of its own "
            "start `vlac-gym serve` there."
        )
    train = cfg.env.get("train")
    if train is not None:
        options = read_options(train)
        _check_chunk(cfg, options)
        _check_levels(cfg)
        if options.mode == "train" and options.auto_reset and not options.settings.truncate_as_terminal:
            raise ConfigError(
                "Expected truncate_as_terminal: true beside env.train.auto_reset: true, since RLinf adds "
                "gamma * V(last state) to the step at the limit, where the critic's value is paid already."
            )
    evaluates = cfg.runner.get("only_eval", False) or cfg.runner.get("val_check_interval", -1) > 0
    if cfg.env.get("eval") is not None and evaluates:
        options = read_options(cfg.env.eval)
        _check_chunk(cfg, options)
        if not options.is_eval:
            raise ConfigError("Expected env.eval.is_eval: true, got false.")


def _phase(cfg: Any, plain: Mapping[str, Any]) -> Phase:
    is_eval = plain.get("is_eval", False)
    # RLinf hands its workers the node itself, so that its key tells which section this is.
    key = cfg._key() if hasattr(cfg, "_key") else None
    if key in ("train", "eval") and is_eval is not (key == "eval"):
        raise ConfigError(
            f"Expected env.{key}.is_eval: {str(key == 'eval').lower()}, got {is_eval!r}. It decides whether the "
            "critic or the simulator speaks."
        )
    return "validate" if is_eval else "train"


def _advantages(cfg: Any) -> str | None:
    """``algorithm.adv_type`` of the config that the section is a part of; None for a section by itself."""
    root = cfg._get_root() if hasattr(cfg, "_get_root") else {}
    adv_type = (root.get("algorithm") or {}).get("adv_type")
    return None if adv_type is None else str(adv_type).lower()


def _check_reward_keys(plain: Mapping[str, Any], where: str) -> None:
    neutral: dict[str, tuple[Any, ...]] = {
        "use_rel_reward": (False,),
        "use_step_penalty": (False,),
        "reward_coef": (1, 1.0),
    }
    for name, values in neutral.items():
        if name in plain and plain[name] not in values:
            raise ConfigError(
                f"Expected {where}.{name}: {str(values[0]).lower()}, got {plain[name]!r}. The reward is what the "
                f"training rule pays; change {BLOCK}.rule instead."
            )
    if (plain.get("data_collection") or {}).get("enabled"):
        raise ConfigError(
            f"Expected {where}.data_collection.enabled: false: RLinf's collector wants every step's picture, and only "
            "those that somebody looks at are rendered. Record episodes with: vlac-gym collect"
        )


def _merged(settings: AdapterSettings, plain: Mapping[str, Any], limit: int, where: str) -> AdapterSettings:
    env = settings.env
    if env.max_episode_steps not in (None, limit):
        raise ConfigError(
            f"{where} says max_episode_steps {limit}, its {BLOCK}.env {env.max_episode_steps}. Drop the latter."
        )
    tasks = plain.get("task_id_filter")
    if tasks is not None and env.tasks not in (None, tuple(tasks)):
        raise ConfigError(
            f"{where} says task_id_filter {tasks}, its {BLOCK}.env.tasks {list(env.tasks or ())}. Drop one."
        )
    if settings.placement.env_resource is not None:
        raise ConfigError("placement.env_resource is unknown to RLinf. Use its cluster.component_placement.")
    chosen = env.tasks if tasks is None else tuple(tasks)
    return replace(settings, env=replace(env, max_episode_steps=limit, tasks=chosen))


def _check_levels(cfg: Any) -> None:
    """Refuses rewards and probabilities of another grain than the clone policy's draws, and what it can't learn."""
    model = cfg.get("actor", {}).get("model", {})
    if model.get("model_type") != POLICY:
        return
    learn = model.get("learn") or "all"
    check_choice("actor.model.learn", learn, get_args(Learn))
    level = "chunk_level" if learn == "offset" else "action_level"
    for name in ("reward_type", "logprob_type"):
        given = cfg.algorithm.get(name)
        if given != level:
            raise ConfigError(
                f"Expected algorithm.{name}: {level} with actor.model.learn: {learn}, which draws once per "
                f"{level.partition('_')[0]}, got {given!r}."
            )


def _check_chunk(cfg: Any, options: RolloutOptions) -> None:
    part = "rollout" if cfg.runner.get("only_eval", False) else "actor"
    chunk = cfg.get(part, {}).get("model", {}).get("num_action_chunks")
    if chunk is not None and chunk != options.settings.env.chunk:
        raise ConfigError(
            f"Expected {BLOCK}.env.chunk {chunk} as in {part}.model.num_action_chunks, got "
            f"{options.settings.env.chunk}."
        )
    if chunk is not None and options.max_episode_steps % chunk:
        raise ConfigError(
            f"Expected max_episode_steps as a multiple of the chunk {chunk}, as RLinf does, got "
            f"{options.max_episode_steps}."
        )
