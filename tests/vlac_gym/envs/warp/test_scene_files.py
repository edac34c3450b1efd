"""A LIBERO task written down and read again, with the MuJoCo that LIBERO needs."""

import copy
import dataclasses
import json
import shutil
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlac_gym import make_vec
from vlac_gym.cli import main
from vlac_gym.envs.warp.export import export_scene
from vlac_gym.envs.warp.scene_files import START_ARRAYS, SceneFiles, list_scene_folders, read_scene_files
from vlac_gym.errors import ConfigError, DependencyNotInstalled
from vlac_gym.vector.warp_executor import warp_envs


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("scenes")
    export_scene("libero_spatial", 0, root / "libero_spatial_0", num_starts=2, texture_size=16)
    return root


def test_the_scene_compiles_to_the_envs_numbers(scenes, libero_env):
    scene = read_scene_files(scenes / "libero_spatial_0")
    libero_env.reset(options={"init_state_id": 0})
    theirs = libero_env.unwrapped._simulator._model
    for name in (
        "body_pos",
        "body_mass",
        "geom_pos",
        "geom_rgba",
        "jnt_range",
        "light_pos",
        "actuator_gainprm",
    ):
        assert np.allclose(getattr(scene.model, name), getattr(theirs, name), atol=1e-6), name
    # LIBERO moves the fixtures after compiling; no other array may need more than rounding under this MuJoCo.
    assert {"body_pos", "body_quat"} <= set(scene.changed)
    assert scene.task["task"] == libero_env.unwrapped.task.language


def test_tasks_share_a_batch_if_they_differ_in_bodies_places_starts_and_goals_only(scenes):
    scene = read_scene_files(scenes / "libero_spatial_0")

    def changed(name: str, value: float) -> SceneFiles:
        model = copy.copy(scene.model)
        getattr(model, name)[...] = value
        return dataclasses.replace(scene, model=model)

    goal = {"goal": "in", "goal_bodies": [1], "goal_geoms": [], "goal_site": 2, "goal_size": [1.0, 1.0, 1.0]}
    names = {"suite": "other", "task_id": 7, "task": "stack", "max_episode_steps": 9, "num_init_states": 3}
    like = (
        dataclasses.replace(scene, task=scene.task | goal | names, starts={}, changed={}),
        changed("body_pos", 0.5),
        changed("body_quat", 0.5),
    )
    unlike = [changed(name, 0.5) for name in ("geom_rgba", "geom_size", "mesh_vert", "body_mass")]
    unlike += [changed("tex_data", 5), dataclasses.replace(scene, task=scene.task | {"kp": [1.0] * 6})]
    before = scene.model.body_pos.copy()
    assert [other.batch_key == scene.batch_key for other in like] == [True] * 3
    assert [other.batch_key == scene.batch_key for other in unlike] == [False] * 6
    assert np.array_equal(scene.model.body_pos, before)


def test_starts_are_the_envs_settled_states(scenes, libero_env):
    starts = read_scene_files(scenes / "libero_spatial_0").starts
    assert set(starts) == set(START_ARRAYS)
    assert [len(starts[name]) for name in START_ARRAYS] == [2] * len(START_ARRAYS)
    for state in range(2):
        libero_env.reset(options={"init_state_id": state})
        physics = libero_env.unwrapped.physics_state()
        assert np.array_equal(np.concatenate([starts["qpos"][state], starts["qvel"][state]]), physics[1:])


def test_the_scene_travels_with_its_files_and_shrunk_textures(scenes):
    folder = scenes / "libero_spatial_0"
    files = [entry for entry in ET.parse(folder / "scene.xml").iter() if "file" in entry.attrib]
    assert {entry.tag for entry in files} == {"mesh", "texture"}
    assert all((folder / entry.attrib["file"]).is_file() for entry in files)
    for entry in files:
        if entry.tag == "texture":
            with Image.open(folder / entry.attrib["file"]) as picture:
                assert max(picture.size) <= 16


def test_a_region_is_a_goal_and_a_drawer_is_not(tmp_path):
    export_scene("libero_object", 0, tmp_path / "basket", num_starts=1, texture_size=16)
    task = read_scene_files(tmp_path / "basket").task
    assert task["goal"] == "in"
    assert len(task["goal_size"]) == 3
    with pytest.raises(ConfigError, match="one object on another or in a region"):
        export_scene("libero_goal", 0, tmp_path / "drawer", num_starts=1, texture_size=16)
    assert not (tmp_path / "drawer").exists()


def test_files_of_another_format_are_refused(scenes, tmp_path):
    task = json.loads((scenes / "libero_spatial_0" / "task.json").read_text())
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "task.json").write_text(json.dumps(task | {"format": 0}))
    (tmp_path / "old" / "scene.xml").write_text("<mujoco/>")
    with pytest.raises(ConfigError, match="format 1"):
        read_scene_files(tmp_path / "old")


def test_tasks_that_were_not_exported_are_named(scenes, tmp_path):
    assert set(list_scene_folders(scenes)) == {("libero_spatial", 0)}
    with pytest.raises(ConfigError, match="export-scenes --task-suite libero_goal --task-ids 3"):
        warp_envs(str(scenes), [("libero_spatial", 0), ("libero_goal", 3)])
    with pytest.raises(ConfigError, match=r"suite in .* 'libero_spacial'\. .*Did you mean 'libero_spatial'"):
        make_vec("libero_spacial", None, 1, backend="warp", scenes=scenes)
    with pytest.raises(ConfigError, match="found none"):
        list_scene_folders(tmp_path)
    with pytest.raises(ConfigError, match=f"got a task's: .* Pass {scenes}"):
        list_scene_folders(scenes / "libero_spatial_0")


@pytest.mark.parametrize("text", ['{"suite": "libero_spatial"}', "[]", "{"])
def test_a_task_file_of_somebody_else_is_named(tmp_path, text):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "task.json").write_text(text)
    with pytest.raises(ConfigError, match=r"Expected .*other/task\.json as vlac-gym export-scenes writes it"):
        list_scene_folders(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_episode_steps": 0}, "max_episode_steps to be a whole number in 1"),
        ({"max_episode_steps": 2.5}, "max_episode_steps to be a whole number in 1"),
        ({"image_size": 15}, "image_size to be a whole number in 16"),
        ({"step_timeout_s": 5.0}, "no options of workers .* step_timeout_s"),
    ],
)
def test_options_of_worlds_are_checked_before_there_are_any(scenes, options, message):
    with pytest.raises(ConfigError, match=message):
        make_vec("libero_spatial", 0, 1, backend="warp", scenes=scenes, **options)


def test_mujoco_warp_is_to_be_installed_away_from_libero(scenes, monkeypatch):
    monkeypatch.setitem(sys.modules, "mujoco_warp", None)
    for name in ("kernels", "pictures", "worlds"):
        monkeypatch.delitem(sys.modules, f"vlac_gym.envs.warp.{name}", raising=False)
    message = r'needs mujoco_warp\. In an environment of its own.*"vlac-gym\[warp\]"'
    with pytest.raises(DependencyNotInstalled, match=message):
        make_vec("libero_spatial", 0, 1, backend="warp", scenes=scenes)
    with pytest.raises(DependencyNotInstalled, match=message):  # before anybody loads a critic for them
        warp_envs(scenes, [("libero_spatial", 0)])


def test_the_command_keeps_what_is_there_and_checks_first(scenes, capsys):
    before = (scenes / "libero_spatial_0" / "task.json").stat().st_mtime_ns
    assert main(["export-scenes", "--out", str(scenes), "--task-ids", "0", "--resume"]) == 0
    assert "was there before, with 2 initial states" in capsys.readouterr().out
    assert (scenes / "libero_spatial_0" / "task.json").stat().st_mtime_ns == before
    assert main(["export-scenes", "--out", str(scenes), "--task-ids", "99"]) == 2
    assert "task ids of libero_spatial in rising order and below 10, got '99'" in capsys.readouterr().err
    assert main(["export-scenes", "--out", str(scenes), "--task-ids", "1", "--num-starts", "51"]) == 2
    assert "--num-starts <= 50 for task 1" in capsys.readouterr().err


def test_a_task_that_was_cut_short_is_not_taken_for_whole(scenes, tmp_path, monkeypatch):
    folder = tmp_path / "libero_spatial_0"
    shutil.copytree(scenes / "libero_spatial_0", folder)

    def is_killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("vlac_gym.envs.warp.export._settled_starts", is_killed)
    with pytest.raises(KeyboardInterrupt):
        export_scene("libero_spatial", 0, folder, num_starts=2, texture_size=16)
    with pytest.raises(ConfigError, match="found none"):
        list_scene_folders(tmp_path)
