"""verl 0.9.1's own configuration and workers around this package's envs; needs an environment with verl."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from critic_process import CriticProcess

SUPPORT = Path(__file__).parents[2] / "support"


@pytest.fixture(scope="session")
def tiny_policy(tmp_path_factory) -> Path:
    """A model's folder without weights."""
    from tiny_policy import write_tiny_policy

    return write_tiny_policy(tmp_path_factory.mktemp("policy"))


@pytest.fixture(scope="session")
def start_critic(tmp_path_factory) -> Iterator[Callable[[], CriticProcess]]:
    """Starts critic servers, each of which has given no answer yet."""
    started: list[CriticProcess] = []

    def start() -> CriticProcess:
        started.append(CriticProcess(tmp_path_factory.mktemp("critic") / "answers.jsonl"))
        return started[-1]

    yield start
    for process in started:
        process.close()


@pytest.fixture
def critic(start_critic) -> CriticProcess:
    """A critic server of the test's own."""
    return start_critic()


@pytest.fixture(scope="session")
def make_block() -> Callable[[str], dict[str, Any]]:
    """Settings for two chunks of at most 4 steps on LIBERO; task 1 counts as done from step 3 on, task 0 never."""
    env = {"suite": "libero_spatial", "tasks": [0, 1], "image_size": 64, "chunk": 4, "max_episode_steps": 6}
    return lambda url: {
        "env": env,
        "critic": {"spec": url},
        "rule": {"min_steps": 3, "value_stride": 2},
        "placement": {"envs_per_worker": 1},
    }


@pytest.fixture
def settings_block(critic, make_block) -> dict[str, Any]:
    """Settings with the test's own critic."""
    return make_block(critic.url)


@pytest.fixture(scope="session")
def compose(tiny_policy) -> Callable[..., Any]:
    """Composes verl's real trainer configuration for a CPU."""

    def composed(*overrides: str) -> Any:
        from hydra import compose as hydra_compose
        from hydra import initialize_config_module

        with initialize_config_module("verl.trainer.config", version_base=None):
            return hydra_compose(
                "ppo_trainer",
                overrides=[
                    f"actor_rollout_ref.model.path={tiny_policy}",
                    "trainer.device=cpu",
                    "actor_rollout_ref.rollout.name=vllm",
                    "actor_rollout_ref.rollout.prompt_length=1024",
                    "actor_rollout_ref.rollout.response_length=640",
                    "actor_rollout_ref.rollout.calculate_log_probs=true",
                    "actor_rollout_ref.rollout.agent.num_workers=1",
                    "data.return_raw_chat=true",
                    *overrides,
                ],
            )

    return composed


@pytest.fixture(scope="session")
def worker_environment() -> dict[str, str]:
    """Environment variables of Ray's workers."""
    names = ("MUJOCO_GL", "PYOPENGL_PLATFORM")
    given = {name: os.environ[name] for name in names if name in os.environ}
    return {"PYTHONPATH": str(SUPPORT), "OMP_NUM_THREADS": "1", **given}


@pytest.fixture(scope="session")
def start_ray(worker_environment) -> Callable[..., None]:
    """`ray.init` for a local cluster; tries again where Ray's own 30 s for a node are too short for a busy machine."""
    import ray

    def start(**options: Any) -> None:
        for attempt in range(3):
            try:
                ray.init(include_dashboard=False, runtime_env={"env_vars": worker_environment}, **options)
                return
            except Exception as e:  # Ray raises no narrower type here.
                if "timed out during startup" not in str(e) or attempt == 2:
                    raise
                ray.shutdown()

    return start
