"""The rows that verl reads."""

import pytest

from verl_env_adapter.verl.dataset import build_rows, main
from vlac_gym.envs.libero.tasks import get_task
from vlac_gym.errors import ConfigError


def test_rows_alternate_tasks_and_fix_their_start():
    tasks = [get_task("libero_spatial", 0), get_task("libero_spatial", 2)]
    rows = build_rows(tasks, range(2), "train")
    starts = [(row["extra_info"]["task_id"], row["extra_info"]["init_state_id"]) for row in rows]
    assert starts == [(0, 0), (2, 0), (0, 1), (2, 1)]
    assert rows[1] == {
        "prompt": [{"role": "user", "content": tasks[1].language}],
        "data_source": "vlac_gym/libero_spatial",
        "agent_name": "vlac_gym",
        "reward_model": {"style": "env", "ground_truth": ""},
        "extra_info": {
            "index": 1,
            "mode": "train",
            "task_suite": "libero_spatial",
            "task_id": 2,
            "init_state_id": 0,
        },
    }


def test_rows_that_can_not_be_played_are_refused():
    task = get_task("libero_spatial", 0)
    with pytest.raises(ConfigError, match="'train' or 'eval', got 'test'"):
        build_rows([task], [0], "test")
    with pytest.raises(ConfigError, match=r"initial states 0\.\.49, got \[50\]"):
        build_rows([task], [50], "train")


def test_command_names_its_mistakes(tmp_path, capsys):
    assert main(["--out", str(tmp_path), "--suite", "libero_spacial"]) == 2
    assert "Did you mean 'libero_spatial'" in capsys.readouterr().err
    assert main(["--out", str(tmp_path), "--val-starts", "50"]) == 2
    assert "--val-starts in 1..49, got 50" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
