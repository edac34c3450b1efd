"""What gpu_simulation.py and gpu_recording.py do without mujoco-warp."""

import importlib.util
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

SCENE = """<mujoco><compiler meshdir="elsewhere"/><asset>
<mesh name="bowl" file="{mesh}"/><texture name="wood" file="{texture}" type="2d"/>
<material name="wood" texture="wood"/></asset>
<worldbody><geom type="mesh" mesh="bowl" material="wood"/></worldbody></mujoco>"""


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / "gpu_simulation.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    (tmp_path / "task.json").write_text("{}")
    return tmp_path


@pytest.fixture
def gpu_recording() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_recording", BENCHMARKS / "gpu_recording.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def scene(tmp_path: Path) -> str:
    (tmp_path / "bowl.obj").write_text("v 0 0 0")
    Image.new("RGB", (64, 32), (200, 100, 0)).save(tmp_path / "wood.png")
    return SCENE.format(mesh=tmp_path / "bowl.obj", texture=tmp_path / "wood.png")


def test_help_needs_no_warp() -> None:
    done = run("--help")
    assert done.returncode == 0
    assert "--replay" in done.stdout


def test_a_folder_without_a_recording_is_named(tmp_path: Path) -> None:
    done = run(tmp_path, "--check")
    assert done.returncode == 2
    assert f"{tmp_path} has no task.json; write it: python benchmarks/gpu_recording.py" in done.stderr


def test_nothing_to_do_is_an_error(recording: Path) -> None:
    done = run(recording)
    assert done.returncode == 2
    assert "give --worlds, --check, --replay, --expert or --verdicts" in done.stderr


def test_numbers_below_one_are_refused(recording: Path) -> None:
    done = run(recording, "--worlds", 64, 0, "--pictures", -1, "--expert-steps", -2)
    assert done.returncode == 2
    assert "expected numbers from 1 on, got [0, -1, -2]" in done.stderr


def test_a_scene_travels_with_its_meshes_and_without_textures(
    gpu_recording: ModuleType, scene: str, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    gpu_recording.write_scene(scene, folder, 0)
    root = ET.parse(folder / "scene.xml").getroot()
    assert [entry.tag for entry in root.iter() if "file" in entry.attrib] == ["mesh"]
    assert (folder / root.find("asset/mesh").attrib["file"]).read_text() == "v 0 0 0"
    assert not [
        entry for entry in root.iter() if entry.tag in ("texture", "material") or "material" in entry.attrib
    ]
    assert "meshdir" not in root.find("compiler").attrib


def test_textures_that_are_asked_for_are_shrunk(
    gpu_recording: ModuleType, scene: str, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    gpu_recording.write_scene(scene, folder, 16)
    root = ET.parse(folder / "scene.xml").getroot()
    with Image.open(folder / root.find("asset/texture").attrib["file"]) as picture:
        assert picture.size == (16, 8)
    assert root.find("worldbody/geom").attrib["material"] == "wood"
