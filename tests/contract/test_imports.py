"""Which way imports flow, and what the light install needs."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from light_imports import BLOCK_THE_REST

ROOT = Path(__file__).parents[2]
PACKAGES = ("vlac_gym", "verl_env_adapter")

MODEL_CODE = (
    "vlac_gym/critic/engines/",
    "vlac_gym/critic/vlac/tiny",
    "vlac_gym/clone/",
    "vlac_gym/train_nano/",
    "vlac_gym/training/device.py",
    "vlac_gym/training/merge_adapter.py",
    "vlac_gym/policies/lerobot.py",
    "verl_env_adapter/",
)

# Third-party package -> path prefixes of the modules that may import it.
HOMES = {
    "torch": (*MODEL_CODE, "vlac_gym/frames/on_device.py"),
    "transformers": MODEL_CODE,
    "huggingface_hub": ("vlac_gym/files/hub.py", "vlac_gym/critic/vlac/checkpoints.py"),
    "peft": ("vlac_gym/training/merge_adapter.py",),
    "swift": ("vlac_gym/critic/engines/",),
    "openai": ("vlac_gym/critic/engines/",),
    "libero": ("vlac_gym/envs/",),
    "robosuite": ("vlac_gym/envs/",),
    "mujoco": ("vlac_gym/envs/",),
    "mujoco_warp": ("vlac_gym/envs/warp/",),
    "warp": ("vlac_gym/envs/warp/",),
    "ray": ("vlac_gym/service/ray_serve.py", "vlac_gym/curriculum", "verl_env_adapter/"),
    "verl": ("verl_env_adapter/",),
    "rlinf": ("verl_env_adapter/",),
    "fastapi": ("vlac_gym/service/",),
    "uvicorn": ("vlac_gym/service/",),
    "lerobot": ("vlac_gym/policies/lerobot.py",),
    "openpi_client": ("vlac_gym/policies/websocket.py",),
    "websockets": ("vlac_gym/policies/websocket.py",),
    "jinja2": ("vlac_gym/reporting/",),
    "scipy": ("vlac_gym/report_card/",),
    "sklearn": ("vlac_gym/report_card/",),
    "tyro": ("vlac_gym/cli/",),
}  # fmt: skip

FREE = {"", "checks", "errors", "types", "extras"}
FACTS = {"LIBERO_ENV_ID", "__version__"}
"""What any module may take from the package itself."""


def allow_list() -> dict[str, set[str]]:
    """CONTRIBUTING.md's table: folder -> folders whose modules it may import."""
    rows = re.findall(
        r"^\| `([\w/<>]+)/` \|[^|]*\| ([^|]*)\|$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE
    )
    allowed: dict[str, set[str]] = {}
    for folder, names in rows:
        everything = set(allowed) - {"cli"} if "everything" in names else set()
        allowed[folder.removeprefix("verl_env_adapter/")] = everything | set(re.findall(r"`(\w+)`", names))
    return {name: names - {"cli", "vlac_gym"} for name, names in allowed.items()}


def folder_of(module: str) -> str:
    """The room that a module belongs to: `vlac_gym.rule.reward` -> `rule`; a package's own `__init__` -> ``.

    An adapter's folder shares its name with no folder of `vlac_gym`.
    """
    return module.partition(".")[2].partition(".")[0]


def own_imports(path: Path) -> Iterator[tuple[int, str, str]]:
    """(line, folder, name) of each import of this project."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in PACKAGES:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield node.lineno, folder_of(full), full
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] in PACKAGES:
                    yield node.lineno, folder_of(alias.name), alias.name


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


def folders() -> Iterator[tuple[str, Path]]:
    for path in modules():
        parts = path.relative_to(ROOT).parts
        if len(parts) > 2:
            yield parts[1], path


def test_every_folder_imports_what_contributing_allows():
    allowed = allow_list()
    trainers = allowed.pop("<trainer>") | {"common"}
    wrong = []
    for folder, path in folders():
        is_adapter = path.relative_to(ROOT).parts[0] == "verl_env_adapter"
        row = allowed[folder] if not is_adapter or folder == "common" else trainers
        for line, target, name in own_imports(path):
            is_free = target in FREE | FACTS | {folder} or target in row
            crosses_back = not is_adapter and name.startswith("verl_env_adapter")
            if crosses_back or not is_free:
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
    assert wrong == []


def test_every_folder_has_a_row_and_every_row_a_folder():
    allowed = set(allow_list())
    present = {folder for folder, path in folders() if path.relative_to(ROOT).parts[0] == "vlac_gym"}
    assert present | {"common", "<trainer>"} == allowed


def test_modules_at_the_top_import_no_folder():
    loose = [path for path in modules() if len(path.relative_to(ROOT).parts) == 2]
    names = {path.stem for path in loose}
    assert names | {""} == FREE | {"__init__"}
    wrong = [
        f"{path.name}:{line} imports {name}"
        for path in loose
        for line, target, name in own_imports(path)
        if target not in FREE and name not in ("vlac_gym.vector.make.make_vec", "vlac_gym.vector.make_vec")
    ]
    assert wrong == []


def test_folders_form_no_circle():
    edges: dict[str, set[str]] = {}
    for folder, path in folders():
        edges.setdefault(folder, set()).update(
            target for _, target, _ in own_imports(path) if target not in FREE | FACTS | {folder}
        )
    order = list(TopologicalSorter(edges).static_order())  # raises CycleError with the circle
    assert set(edges) <= set(order)


def test_modules_form_no_circle():
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in modules()}
    edges = {}
    for name, path in names.items():
        found = {full if full in names else full.rpartition(".")[0] for _, _, full in own_imports(path)}
        edges[name] = {target for target in found if target in names and target != name}
    order = list(TopologicalSorter(edges).static_order())  # raises CycleError with the circle
    assert set(order) == set(names)


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
        "vlac_gym.curriculum.ray_actor",
        "vlac_gym.errors",
        "vlac_gym.metrics.writer",
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
