"""experimental/vla's own workers, loop and trainer, from a checkout named by VERL_EXPERIMENTAL_VLA_PATH."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

SUPPORT = Path(__file__).parents[2] / "support"
ROOT = Path(__file__).parents[3]
CHECKOUT = os.environ.get("VERL_EXPERIMENTAL_VLA_PATH")
PLUGIN = "verl_env_adapter.experimental_vla.plugin"

START_STATES = [
    {"state_ids": 50, "task_ids": 1, "data_source": "libero"},
    {"state_ids": 2, "task_ids": 0, "data_source": "libero"},
]
"""Task 1 counts as done for the critic, task 0 never."""


@pytest.fixture(scope="session")
def stubs(tmp_path_factory) -> Path:
    """torchvision's name, whose picture functions the trainer imports for videos; its wheel needs CUDA's torch."""
    folder = tmp_path_factory.mktemp("stubs") / "torchvision"
    (folder / "transforms").mkdir(parents=True)
    for file in ("__init__.py", "transforms/__init__.py", "transforms/functional.py"):
        (folder / file).write_text("")
    return folder.parent


@pytest.fixture(scope="session")
def ray_session(stubs) -> Iterator[Any]:
    """A local Ray whose workers, like this process, load the plugin when they import verl."""
    path = [str(CHECKOUT), str(ROOT), str(SUPPORT), str(stubs)]
    os.environ["VERL_USE_EXTERNAL_MODULES"] = PLUGIN
    sys.path[:0] = path
    import ray

    names = ("MUJOCO_GL", "PYOPENGL_PLATFORM")
    given = {name: os.environ[name] for name in names if name in os.environ}
    environment = {
        "PYTHONPATH": os.pathsep.join(path),
        "OMP_NUM_THREADS": "1",
        "VERL_USE_EXTERNAL_MODULES": PLUGIN,
        **given,
    }
    ray.init(num_cpus=8, include_dashboard=False, runtime_env={"env_vars": environment})
    yield ray
    ray.shutdown()


@pytest.fixture
def config(critic, monkeypatch) -> Any:
    """The trainer's real configuration, as the example's command composes it, with short episodes."""
    from hydra import compose, initialize_config_dir

    monkeypatch.chdir(str(CHECKOUT))
    overrides = [
        f"hydra.searchpath=[file://verl/trainer/config,file://{ROOT}/examples]",
        "+train_experimental_vla=config",
        "env.train.task_suite_name=libero_spatial",
        "env.train.init_params.camera_heights=64",
        "env.rollout.pipeline_stage_num=1",
        "env.train.num_envs=2",
        "env.train.max_episode_steps=12",
        "env.actor.model.num_action_chunks=4",
        "env.train.vlac_gym.env.chunk=4",
        f"env.train.vlac_gym.critic.spec={critic.url}",
        "env.train.vlac_gym.rule.done_interval=1",
        "+env.train.vlac_gym.rule.min_steps=6",
        "+env.train.vlac_gym.rule.value_stride=2",
        "actor_rollout_ref.model.path=/nowhere",
        "actor_rollout_ref.rollout.n=1",
        "data.train_batch_size=2",
        "data.val_batch_size=2",
        "data.dataloader_num_workers=0",
        "trainer.total_training_steps=1",
        "trainer.device=cpu",
    ]
    folder = str(Path(str(CHECKOUT)) / "verl/experimental/vla/config")
    with initialize_config_dir(folder, version_base=None):
        return compose("rob_ppo_trainer", overrides=overrides)


@pytest.fixture
def env_workers(ray_session, config) -> Any:
    """A worker group of the trainer's env worker, on a CPU."""
    from cpu_env_worker import CpuEnvWorker
    from verl.single_controller.ray import RayClassWithInitArgs, RayResourcePool, RayWorkerGroup

    pool = RayResourcePool([1], use_gpu=False, max_colocate_count=1)
    workers = RayClassWithInitArgs(ray_session.remote(CpuEnvWorker), config=config.env)
    return RayWorkerGroup(resource_pool=pool, ray_cls_with_init=workers, device_name="cpu")


class StillPolicy:
    """Stands in for the rollout workers: pushes down and opens the gripper; remembers what it was told."""

    def __init__(self) -> None:
        self.meta: list[dict[str, Any]] = []

    def generate_sequences(self, observations: Any) -> "StillPolicy.Reply":
        self.meta.append(observations.meta_info)
        return StillPolicy.Reply(len(observations))

    def switch_to_rollout(self) -> None:
        pass

    def switch_to_train(self) -> None:
        pass

    class Reply:
        def __init__(self, count: int) -> None:
            self._count = count

        def get(self) -> Any:
            import torch
            from verl import DataProto

            actions = torch.zeros(self._count, 4, 7)
            actions[..., 2], actions[..., 6] = 0.5, 1.0
            tokens = torch.ones(self._count, 4 * 7, dtype=torch.int64)
            tensors = {"action": actions, "responses": tokens, "input_ids": tokens, "attention_mask": tokens}
            return DataProto.from_dict(tensors={**tensors, "pixel_values": torch.zeros(self._count, 1)})


@pytest.fixture
def policy() -> StillPolicy:
    return StillPolicy()


@pytest.fixture
def trainer(env_workers, config, policy) -> Callable[[], Any]:
    """The trainer's real `RobRayPPOTrainer` and `EnvLoop` without model workers."""

    def make() -> Any:
        from verl.experimental.vla.env_loop import EnvLoop
        from verl.experimental.vla.main_ppo import calculate_reward
        from verl.experimental.vla.rob_ray_trainer import RobRayPPOTrainer
        from verl.trainer.ppo.utils import Role

        trainer = RobRayPPOTrainer(
            config=config,
            tokenizer=SimpleNamespace(eos_token_id=0, pad_token_id=0),
            role_worker_mapping={Role.ActorRollout: None},
            resource_pool_manager=None,
            reward_fn=calculate_reward,
            val_reward_fn=calculate_reward,
            train_dataset=START_STATES,
            val_dataset=START_STATES,
            device_name="cpu",
        )
        trainer.async_rollout_mode = True
        trainer.global_steps = 0
        trainer.env_wg = env_workers
        trainer.async_rollout_manager = EnvLoop(config=config, rollout_wg=policy, env_wg=env_workers)
        return trainer

    return make


@pytest.fixture
def run_without_plugin(stubs) -> Callable[[str], str]:
    """Runs code in a process that has the checkout but not the plugin; returns what it printed."""

    def run(code: str) -> str:
        path = os.pathsep.join([str(CHECKOUT), str(ROOT), str(stubs)])
        environment = {**os.environ, "PYTHONPATH": path}
        environment.pop("VERL_USE_EXTERNAL_MODULES", None)
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout

    return run
