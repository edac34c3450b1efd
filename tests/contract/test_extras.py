"""Every optional package that is missing ends in `DependencyNotInstalled` with the way to get it."""

import ast
import json
import subprocess
import sys
import venv
from collections.abc import Iterator
from importlib.metadata import files
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = [
    p for folder in ("vlac_gym", "verl_env_adapter", "examples") for p in (ROOT / folder).rglob("*.py")
]
BASE = ("numpy", "gymnasium", "cloudpickle", "farama-notifications", "typing_extensions")
"""The package's own dependencies, with theirs."""


def optional_imports(path: Path) -> Iterator[tuple[int, str, bool]]:
    """Line, package and whether a guard stands around it, of all imports beyond the base install."""
    tree = ast.parse(path.read_text())
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(tree):
        for name in imported(node):
            top = name.partition(".")[0]
            own = top in ("vlac_gym", "verl_env_adapter", *sys.stdlib_module_names)
            if not own and top not in ("numpy", "gymnasium", "cloudpickle"):
                yield node.lineno, name, any(map(is_guard, ancestors(node, parents)))


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module:
        return [node.module]
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "importlib.import_module":
        return [node.args[0].value] if isinstance(node.args[0], ast.Constant) else []
    return []


def ancestors(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> Iterator[tuple[ast.AST, ast.AST]]:
    while node in parents:
        yield parents[node], node
        node = parents[node]


def is_guard(step: tuple[ast.AST, ast.AST]) -> bool:
    node, child = step
    if isinstance(node, ast.With):
        return "needs(" in ast.unparse(node.items[0])
    if isinstance(node, ast.Try) and child in node.body:
        return any("ImportError" in ast.unparse(h.type) for h in node.handlers if h.type is not None)
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def test_every_optional_import_is_guarded():
    found = [(path, *one) for path in PROGRAMS for one in optional_imports(path)]
    assert len(found) > 100
    bare = [
        f"{path.relative_to(ROOT)}:{line} {name}" for path, line, name, is_guarded in found if not is_guarded
    ]
    assert bare == []


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory) -> Path:
    """The interpreter of an environment with the base install and nothing else."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False, symlinks=True)
    site = next(folder.glob("lib/python*/site-packages"))
    for distribution in BASE:
        for file in files(distribution) or ():
            source, top = Path(file.locate()), site / file.parts[0]
            if file.parts[0] not in ("..", "__pycache__") and not top.exists():
                top.symlink_to(source.parents[len(file.parts) - 2] if len(file.parts) > 1 else source)
    return folder / "bin" / "python"


def run(python: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(python), *command],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
    )


WALK = """
import importlib, json, pkgutil, sys
import verl_env_adapter, vlac_gym
from vlac_gym.errors import DependencyNotInstalled

outcomes = {}
for package in (vlac_gym, verl_env_adapter):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if module.name.endswith("__main__"):
            continue
        try:
            importlib.import_module(module.name)
        except DependencyNotInstalled as e:
            outcomes[module.name] = str(e)
        else:
            outcomes[module.name] = ""
print(json.dumps(outcomes))
"""


def test_every_module_imports_or_says_what_to_install(bare_python):
    done = run(bare_python, "-W", "error", "-c", WALK)
    assert done.returncode == 0, done.stderr
    outcomes = json.loads(done.stdout)
    missing = {name: message for name, message in outcomes.items() if message}
    assert 30 < len(missing) < len(outcomes) - 100
    assert [
        name
        for name, message in missing.items()
        if "pip install" not in message and "Get it from" not in message
    ] == []
    assert "vlac-gym[client]" in missing["vlac_gym.service.client"]
    assert "vlac-gym[serve]" in missing["vlac_gym.service.metrics"]
    assert "vlac-gym[vlac]" in missing["vlac_gym.critic.engines.transformers"]


USES = {
    "make_critic('http://h:1')": "vlac-gym[client]",
    "make_critic('https://h:1,http://i:2?timeout_s=3')": "vlac-gym[client]",
    "make_critic('nano')": "vlac-gym[vlac]",
    "make_critic('nano?reading=plain')": "vlac-gym[vlac]",
    "make_critic('transformers:/x')": "vlac-gym[vlac]",
    "make_critic('swift:/x')": "vlac-gym[swift]",
    "make_critic('openai:http://h:1/v1#m')": "vlac-gym[openai]",
    "VLACRewardWrapper(ScriptedEnv(success_steps=[2]), 'http://h:1').reset()": "vlac-gym[client]",
    "gym.make('vlac_gym/Libero-v0').reset()": "vlac-gym[libero]",
    "make_vec('libero_spatial', [0], 1, mode='sync')": "vlac-gym[libero]",
    "RayCurriculum.start([0], 1)": "vlac-gym[ray]",
    "main(['tasks'])": "vlac-gym[cli]",
    "main(['rollout'])": "vlac-gym[cli]",
    "read_frames(pictures)": "vlac-gym[video]",
    "read_frames(video)": "vlac-gym[video]",
    "encode_frame(np.zeros((2, 2, 3), np.uint8))": "vlac-gym[",
    "save_curves_png(picture, pictures / 'x.png')": "vlac-gym[video]",
    "write_video(picture, pictures / 'x.mp4')": "vlac-gym[video]",
    "render_template('run.html')": "vlac-gym[video]",
    "limit_cuda_memory(0.5)": "vlac-gym[vlac]",
    "load_settings(settings)": "pip install pyyaml",
    "TensorBoardSink(pictures / 'm')": "pip install tensorboardX",
}
"""What a user may do on a base install -> what must be named as missing."""

USE = """
import contextlib, io, json, sys, tempfile
from pathlib import Path
import gymnasium as gym
import numpy as np
import vlac_gym
from vlac_gym.cli import main
from vlac_gym.critic import make_critic
from vlac_gym.critic.engines.cuda_memory import limit_cuda_memory
from vlac_gym.curriculum.ray_actor import RayCurriculum
from vlac_gym.envs.scripted import ScriptedEnv
from vlac_gym.errors import DependencyNotInstalled
from vlac_gym.frames.files import read_frames
from vlac_gym.frames.codec import encode_frame
from vlac_gym.metrics.writer import TensorBoardSink
from vlac_gym.reporting.curves import save_curves_png
from vlac_gym.reporting.episode_picture import picture_of_trace
from vlac_gym.reporting.rendering import render_template
from vlac_gym.reporting.trace import CriticTrace, EpisodeTrace, StepTrace
from vlac_gym.reporting.video import write_video
from vlac_gym.vector import make_vec
from vlac_gym.wrappers import VLACRewardWrapper
from verl_env_adapter.common.settings import load_settings

pictures = Path(tempfile.mkdtemp())
(pictures / "1.png").touch()
video, settings = pictures / "x.mp4", pictures / "x.yaml"
video.touch()
settings.touch()
frame = np.zeros((64, 64, 3), np.uint8)
picture = picture_of_trace(EpisodeTrace("t", "train", (StepTrace(1),), CriticTrace(), (frame, frame)))
said = {}
for use in json.loads(sys.argv[1]):
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            eval(use)
    except DependencyNotInstalled as e:
        said[use] = str(e)
    except Exception as e:
        said[use] = repr(e)
    else:
        said[use] = printed.getvalue()
print(json.dumps(said))
"""


def test_every_use_names_what_it_needs(bare_python):
    done = run(bare_python, "-c", USE, json.dumps(list(USES)))
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    wrong = {use: said[use] for use, needed in USES.items() if needed not in said[use]}
    assert wrong == {}


@pytest.mark.parametrize("name", ["02_eval_mode", "05_vector_rollout", "06_maniskill", "train_ppo"])
def test_examples_end_with_the_command_that_they_need(bare_python, name):
    done = run(bare_python, f"examples/{name}.py")
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1
    assert "DependencyNotInstalled" in last
    assert "pip install" in last
