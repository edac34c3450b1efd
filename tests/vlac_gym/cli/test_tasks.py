import json
import signal
import subprocess
import sys

from vlac_gym.cli import main


def test_suites_are_listed_with_their_limits(capsys):
    assert main(["tasks"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["task_suite", "tasks", "max_episode_steps", "init_states"]
    assert lines[1].split() == ["libero_spatial", "10", "220", "50"]
    assert len(lines) > 30


def test_tasks_of_a_suite_are_listed_with_their_language(capsys):
    assert main(["tasks", "--task-suite", "libero_goal", "--json"]) == 0

    tasks = json.loads(capsys.readouterr().out)
    assert len(tasks) == 10
    assert tasks[8] == {
        "task_id": 8,
        "init_states": 50,
        "max_episode_steps": 300,
        "task": "put the bowl on the plate",
    }


def test_unknown_suite_names_the_nearest(capsys):
    assert main(["tasks", "--task-suite", "libero_gaol"]) == 2
    assert "Did you mean 'libero_goal'?" in capsys.readouterr().err


def test_a_reader_that_leaves_ends_the_command_quietly():
    command = [sys.executable, "-m", "vlac_gym.cli", "tasks", "--task-suite", "libero_90", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()  # as `| head` does, sooner
        assert process.stderr.read() == ""
    assert process.returncode == 128 + signal.SIGPIPE
