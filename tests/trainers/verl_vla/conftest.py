"""verl-vla's own workers and loops around this package's envs, from a checkout named by VERL_VLA_PATH."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SUPPORT = Path(__file__).parents[2] / "support"
ROOT = Path(__file__).parents[3]
CHECKOUT = os.environ.get("VERL_VLA_PATH")

if CHECKOUT is not None:
    sys.path.insert(0, str(Path(CHECKOUT) / "src"))


@pytest.fixture(scope="session")
def lerobot_names() -> None:
    """The two names of lerobot that verl-vla's trainer module imports; nothing here calls them."""
    try:
        import lerobot  # noqa: F401
    except ImportError:
        for name, attribute in (
            ("lerobot", None),
            ("lerobot.datasets", None),
            ("lerobot.datasets.lerobot_dataset", "LeRobotDataset"),
            ("lerobot.datasets.video_utils", "decode_video_frames"),
        ):
            module = ModuleType(name)
            if attribute is not None:
                setattr(module, attribute, type(attribute, (), {}))
            sys.modules[name] = module


@pytest.fixture(scope="session")
def ray_session() -> Iterator[Any]:
    """A local Ray whose workers find the checkout, this package and the test's helpers."""
    import ray

    path = os.pathsep.join([str(ROOT), str(SUPPORT), str(Path(CHECKOUT or "") / "src")])
    names = ("MUJOCO_GL", "PYOPENGL_PLATFORM")
    given = {name: os.environ[name] for name in names if name in os.environ}
    environment = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", **given}
    # Logical CPUs: verl-vla asks for three per worker.
    ray.init(num_cpus=12, include_dashboard=False, runtime_env={"env_vars": environment})
    yield ray
    ray.shutdown()


@pytest.fixture
def worker_config() -> Callable[..., Any]:
    """verl-vla's own configuration from the example's file, with the example's settings block replaced."""

    def make(block: dict[str, Any], **env_worker: Any) -> Any:
        from hydra import compose, initialize_config_dir
        from hydra.utils import instantiate
        from omegaconf import OmegaConf

        with initialize_config_dir(str(ROOT / "examples/train_verl_vla"), version_base=None):
            config = compose("config", overrides=["cluster.actor_rollout_ref.model.path=/nowhere"])
        OmegaConf.set_struct(config, False)
        env = config.cluster.env
        env.env_worker.simulator.libero.vlac_gym = block
        env.env_worker.device = "cpu"
        env.env_loop.max_interactions = env_worker.pop("max_interactions", 3)
        env.env_loop.pipeline_stage_num = env_worker.pop("stages", 2)
        for name, value in env_worker.items():
            env.env_worker[name] = value
        return instantiate(env, _recursive_=False)

    return make


@pytest.fixture
def start_cluster(ray_session) -> Iterator[Callable[[Any], Any]]:
    """Starts verl-vla's real `TrainCluster` with env workers only, after ending the one before."""
    clusters: list[Any] = []

    def stop() -> None:
        while clusters:
            clusters.pop().shutdown()

    def start(env_config: Any) -> Any:
        stop()
        from verl_vla.train_cluster import TrainCluster
        from verl_vla.train_cluster.config import (
            EnvTrainClusterConfig,
            EnvTrainResourceConfig,
            ResourceConfig,
        )

        resource = EnvTrainResourceConfig(env=ResourceConfig(device="cpu"))
        cluster = TrainCluster(EnvTrainClusterConfig(resource=resource, env=env_config))
        clusters.append(cluster)
        cluster.start()
        return cluster

    yield start
    stop()


class StillPolicy:
    """Stands in for the rollout workers: moves the arm a little, and remembers what it was shown."""

    def __init__(self, chunk: int = 4) -> None:
        self._chunk = chunk
        self.seen: list[Any] = []

    def generate_sequences(self, observations: Any) -> "StillPolicy.Reply":
        self.seen.append(observations)
        return StillPolicy.Reply(len(observations), self._chunk)

    class Reply:
        def __init__(self, num_envs: int, chunk: int) -> None:
            self._shape = (num_envs, chunk, 7)

        def get(self) -> Any:
            import torch
            from verl import DataProto

            actions = torch.zeros(self._shape)
            actions[..., 2] = 0.5
            return DataProto.from_dict(tensors={"action": actions})


@pytest.fixture
def policy() -> StillPolicy:
    return StillPolicy()


@pytest.fixture
def env_loop() -> Callable[[Any, Any], Any]:
    """verl-vla's real `EnvLoop` over a cluster's env workers and a policy."""

    def make(cluster: Any, policy: Any) -> Any:
        from verl_vla.train_cluster.env_loop import EnvLoop

        (workers,) = cluster.worker_groups.values()
        return EnvLoop(workers, policy, cluster.config.env.env_loop, switch_actor_rollout_mode=False)

    return make
