"""Which way imports flow, and what the light install needs."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from light_imports import BLOCK_THE_REST

ROOT = Path(__file__).parents[2]
PACKAGES = ("vlac_gym", "verl_env_adapter")

MODEL_CODE = (
    "vlac_gym/critic/engines/",
    "vlac_gym/critic/vlac/tiny",
    "vlac_gym/critic/nano",
    "verl_env_adapter/",
)

# Third-party package -> path prefixes of the modules that may import it.
HOMES = {
    "torch": MODEL_CODE,
    "transformers": MODEL_CODE,
    "swift": ("vlac_gym/critic/engines/",),
    "openai": ("vlac_gym/critic/engines/",),
    "libero": ("vlac_gym/envs/",),
    "robosuite": ("vlac_gym/envs/",),
    "mujoco": ("vlac_gym/envs/",),
    "ray": ("vlac_gym/service/ray_serve.py", "vlac_gym/curriculum", "verl_env_adapter/"),
    "verl": ("verl_env_adapter/",),
    "rlinf": ("verl_env_adapter/",),
    "fastapi": ("vlac_gym/service/",),
    "uvicorn": ("vlac_gym/service/",),
    "jinja2": ("vlac_gym/reporting/",),
    "scipy": ("vlac_gym/report_card/",),
    "sklearn": ("vlac_gym/report_card/",),
    "tyro": ("vlac_gym/cli/",),
}  # fmt: skip

# Path prefix -> packages of our own that its modules must not import.
BARRED = {
    "vlac_gym/": ("verl_env_adapter",),
    "vlac_gym/envs/": ("vlac_gym.critic", "vlac_gym.wrappers", "vlac_gym.service", "vlac_gym.policies"),
    "vlac_gym/critic/": ("vlac_gym.envs", "vlac_gym.wrappers", "vlac_gym.service", "vlac_gym.policies"),
    "vlac_gym/rule/": ("vlac_gym.envs", "vlac_gym.wrappers", "vlac_gym.service", "vlac_gym.policies"),
    "vlac_gym/wrappers/": ("vlac_gym.critic.engines", "vlac_gym.critic.vlac", "vlac_gym.service"),
    "vlac_gym/frames/": tuple(
        f"vlac_gym.{name}"
        for name in ("critic", "data", "envs", "policies", "reporting", "service", "wrappers")
    ),
    "vlac_gym/data/": (
        "vlac_gym.critic.nano",
        "vlac_gym.critic.engines",
        "vlac_gym.wrappers",
        "vlac_gym.service",
    ),
    "vlac_gym/service/": ("vlac_gym.envs", "vlac_gym.wrappers"),
}


def modules() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def imported(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.lineno, node.module
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def test_third_party_packages_stay_in_their_homes():
    strays = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in modules()
        for line, name in imported(path)
        for package, homes in HOMES.items()
        if is_within(name, package) and not str(path.relative_to(ROOT)).startswith(homes)
    ]
    assert strays == []


def test_own_packages_import_in_one_direction():
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in modules()
        for line, name in imported(path)
        for prefix, packages in BARRED.items()
        if str(path.relative_to(ROOT)).startswith(prefix) and any(is_within(name, p) for p in packages)
    ]
    assert wrong == []


LIGHT = (
    BLOCK_THE_REST
    + """
import numpy as np
import vlac_gym
import verl_env_adapter
from vlac_gym.critic import make_critic
from vlac_gym.envs.scripted import ScriptedEnv
from vlac_gym.wrappers import VLACRewardWrapper

env = VLACRewardWrapper(ScriptedEnv(success_steps=[2]), make_critic("oracle"))
env.reset(seed=0)
rewards = [env.step(np.zeros(7, np.float32))[1] for _ in range(2)]
assert rewards == [0.0, 1.0], rewards
heavy = {"torch", "transformers", "mujoco", "libero", "robosuite", "ray", "fastapi", "httpx", "matplotlib"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
print("light")
"""
)


def test_light_install_judges_an_episode_with_numpy_and_gymnasium_alone():
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "light", done.stderr


@pytest.mark.parametrize(
    "name",
    [
        "vlac_gym",
        "vlac_gym.critic",
        "vlac_gym.curriculum",
        "vlac_gym.curriculum_actor",
        "vlac_gym.errors",
        "vlac_gym.metrics_writer",
        "vlac_gym.rollout",
        "vlac_gym.vector",
        "vlac_gym.wrappers",
        "vlac_gym.wrappers.vector",
    ],
)
def test_public_names_exist(name):
    code = f"import {name} as m; missing = [n for n in m.__all__ if not hasattr(m, n)]; assert not missing, missing"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
