"""Does a SimpleVLA-RL command fit its own trainer and this package's settings: `check_recipe`. Loads no trainer.

What the trainer would find out after its first rollout, or never. Proven against SimpleVLA-RL 7c51662 (2026-01-06),
whose lines the comments name.
"""

__all__ = ["EXTERNAL_LIBS", "HOST_MAX_STEPS", "SLEEPING", "StepSizes", "check_recipe", "check_sleeping"]

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from verl_env_adapter.common.policy_view import within_host_limit
from verl_env_adapter.common.settings import AdapterSettings
from verl_env_adapter.simplevla.worker import check_settings
from vlac_gym.errors import ConfigError

SLEEPING = "verl_env_adapter.simplevla.sleeping"
"""The external_lib for a critic on the policy's cards."""

_PLUGIN = "verl_env_adapter.simplevla.plugin"

EXTERNAL_LIBS = (_PLUGIN, SLEEPING)
"""Values of ``actor_rollout_ref.model.external_lib`` that bring this package's env."""

HOST_MAX_STEPS = 512
"""Env steps that the trainer plays in every LIBERO suite (rob_rollout.py:429)."""

_PLATFORM = "ROBOT_PLATFORM"


@dataclass(frozen=True, kw_only=True)
class StepSizes:
    """What one training step of the recipe is made of.

    Attributes:
        cards: GPUs, and GPU workers.
        episodes: Trajectories that one step learns from.
        simulators: Env processes that a card's worker runs at a time.
        passes: Forward and backward passes for one trajectory.
        chunks: Action chunks in one of those passes.
        optimizer_steps: Optimizer steps in one step of the trainer.
        log_prob_chunks: Action chunks in one forward pass for the old log-probabilities.
    """

    cards: int
    episodes: int
    simulators: int
    passes: int
    chunks: int
    optimizer_steps: int
    log_prob_chunks: int


def check_recipe(
    config: Mapping[str, Any], settings: AdapterSettings, environ: Mapping[str, str]
) -> StepSizes:
    """Checks the trainer's whole config on the driver, before anything starts.

    Args:
        config: ``ppo_trainer.yaml`` with the command's overrides, resolved, as plain dicts.
        settings: The block of the file that ``VLAC_GYM_SETTINGS`` names.
        environ: Environment of the GPU workers.

    Raises:
        ConfigError: A value that the trainer, or this adapter in it, can't keep.
    """
    check_settings(settings)
    within_host_limit(settings, HOST_MAX_STEPS, "SimpleVLA-RL")
    _check_env(config, settings, environ)
    _check_policy(config, settings)
    _check_learning(config)
    return _check_sizes(config)


def check_sleeping(settings: AdapterSettings) -> AdapterSettings:
    """The settings, if they name what `SLEEPING` puts to sleep.

    Raises:
        ConfigError: The critic is no server.
    """
    settings.critic.require_server(f"external_lib {SLEEPING}", instead=_PLUGIN)
    return settings


def _check_env(config: Mapping[str, Any], settings: AdapterSettings, environ: Mapping[str, str]) -> None:
    library = config["actor_rollout_ref"]["model"]["external_lib"]
    if library not in EXTERNAL_LIBS:
        raise ConfigError(
            f"Expected actor_rollout_ref.model.external_lib {' or '.join(EXTERNAL_LIBS)}, got {library!r}: the "
            "trainer would pay the simulator's reward."
        )
    if library == SLEEPING:
        check_sleeping(settings)
    suites = {
        "data.task_suite_name": config["data"]["task_suite_name"],
        "actor_rollout_ref.rollout.task_suite_name": config["actor_rollout_ref"]["rollout"][
            "task_suite_name"
        ],
    }
    for name, suite in suites.items():
        if settings.env.is_libero and suite != settings.env.suite:
            raise ConfigError(f"Expected {name} {settings.env.suite!r} as in env.suite, got {suite!r}.")
    if settings.env.tasks is not None:
        raise ConfigError("Expected env.tasks: null, since SimpleVLA-RL plays all tasks of its suite.")
    # Without it the model has the constants of another robot (constants.py: detect_robot_platform).
    if environ.get(_PLATFORM) != "LIBERO":
        raise ConfigError(
            f"Expected {_PLATFORM}=LIBERO in the env_vars of trainer.runtime_env, got {environ.get(_PLATFORM)!r}: the "
            "trainer's model takes its chunk and action size from it."
        )


def _check_policy(config: Mapping[str, Any], settings: AdapterSettings) -> None:
    part = config["actor_rollout_ref"]
    _expect("actor_rollout_ref.rollout.name", part["rollout"]["name"], "hf")
    _expect("actor_rollout_ref.model.vla", part["model"]["vla"], "openvla-oft")
    _expect("actor_rollout_ref.model.action_chunks_len", part["model"]["action_chunks_len"], 8)
    _expect("actor_rollout_ref.model.action_token_len", part["model"]["action_token_len"], 7)
    _expect("env.chunk", settings.env.chunk, part["model"]["action_chunks_len"])
    images = part["rollout"]["num_images_in_input"]
    _expect("actor_rollout_ref.actor.num_images_in_input", part["actor"]["num_images_in_input"], images)
    missing = sorted(set(("agentview", "wrist")[:images]) - set(settings.env.cameras))
    if missing:
        raise ConfigError(
            f"Expected {missing} among env.cameras for num_images_in_input {images}, got {list(settings.env.cameras)}."
        )


def _check_learning(config: Mapping[str, Any]) -> None:
    # Robot batches have no prompts, which its rloo reads (core_algos.py:231), and its gae masks by the prompts' mask.
    _expect("algorithm.adv_estimator", config["algorithm"]["adv_estimator"], "grpo")
    # fit() names the filtered batch only where it filters (ray_trainer.py:574-585).
    if not config["data"]["filter_accuracy"]:
        raise ConfigError(
            "Expected data.filter_accuracy: True, without which SimpleVLA-RL has no batch to train on. Bounds of 0 and "
            "1 keep every group."
        )
    if not config["verifier"]["reward_coef"] > 0:
        raise ConfigError(
            f"Expected verifier.reward_coef above 0, got {config['verifier']['reward_coef']!r}."
        )


def _check_sizes(config: Mapping[str, Any]) -> StepSizes:
    data, part, trainer = config["data"], config["actor_rollout_ref"], config["trainer"]
    actor, rollout, samples = part["actor"], part["rollout"], data["n_samples"]
    cards = trainer["n_gpus_per_node"] * trainer["nnodes"]
    played = int(data["train_batch_size"] * data["oversample_factor"])
    _divide("data.train_batch_size x data.oversample_factor", played, "cards", cards)
    _divide("data.val_batch_size", data["val_batch_size"], "cards", cards)
    _split("rollout.micro_batch_size", played // cards, rollout["micro_batch_size"])
    _split("rollout.val_micro_batch_size", data["val_batch_size"] // cards, rollout["val_micro_batch_size"])

    # The worker divides these by the cards, rounding down (fsdp_workers.py:104-108); dp_rob.py:412 wants a 1.
    if actor["ppo_micro_batch_size"] // cards != 1:
        raise ConfigError(
            f"Expected actor.ppo_micro_batch_size {cards}, one trajectory for each card, got "
            f"{actor['ppo_micro_batch_size']}."
        )
    _divide("actor.ppo_mini_batch_size", actor["ppo_mini_batch_size"], "cards", cards)
    episodes = data["train_batch_size"] * samples
    _divide(
        "data.train_batch_size x data.n_samples",
        episodes,
        "ppo_mini_batch_size",
        actor["ppo_mini_batch_size"],
    )
    # Rows of one forward pass need prompts of one length, so rows of one task (dp_rob.py:58).
    rows = rollout["log_prob_micro_batch_size"] // cards
    if rows < 1 or samples % rows:
        raise ConfigError(
            f"Expected rollout.log_prob_micro_batch_size as cards ({cards}) times a divisor of data.n_samples "
            f"({samples}), got {rollout['log_prob_micro_batch_size']}: rows of several tasks differ in length."
        )
    chunks = -(-HOST_MAX_STEPS // part["model"]["action_chunks_len"])
    _divide("chunks of an episode", chunks, "actor.traj_mini_batch_size", actor["traj_mini_batch_size"])
    return StepSizes(
        cards=cards,
        episodes=episodes,
        simulators=rollout["micro_batch_size"] * samples,
        passes=chunks // actor["traj_mini_batch_size"],
        chunks=actor["traj_mini_batch_size"],
        optimizer_steps=episodes // actor["ppo_mini_batch_size"],
        log_prob_chunks=rows * chunks,
    )


def _expect(name: str, value: object, expected: object) -> None:
    if value != expected:
        raise ConfigError(f"Expected {name} {expected!r}, got {value!r}.")


def _divide(name: str, count: int, by: str, number: int) -> None:
    if number < 1 or count < number or count % number:
        raise ConfigError(f"Expected {name} as a multiple of {by} ({number}), got {count}.")


def _split(name: str, count: int, size: int) -> None:
    """A worker cuts its rows in two ways that must agree: torch's for tensors, numpy's for names (protocol.py:390)."""
    parts = max(count // size, 1)
    largest = -(-count // parts)
    torchs = [largest] * (count // largest) + ([count % largest] if count % largest else [])
    numpys = [count // parts + 1] * (count % parts) + [count // parts] * (parts - count % parts)
    if torchs != numpys:
        raise ConfigError(
            f"Expected actor_rollout_ref.{name} as a divisor of the card's {count} prompts, got {size}: the trainer "
            f"would cut tensors into {torchs} and names into {numpys}."
        )
