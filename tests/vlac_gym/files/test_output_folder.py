import multiprocessing
import os
import signal

import pytest

from vlac_gym.errors import ConfigError
from vlac_gym.files.output_folder import claim_folder


def test_new_folder_is_made_with_its_parents_and_stays_if_something_was_written(tmp_path):
    with claim_folder(tmp_path / "a" / "b") as folder:
        (folder / "card.json").write_text("{}")
    assert os.listdir(tmp_path / "a" / "b") == ["card.json"]


def test_folders_made_in_vain_go_again_and_others_stay(tmp_path):
    (tmp_path / "old").mkdir()
    with pytest.raises(ZeroDivisionError), claim_folder(tmp_path / "old" / "a" / "b"):
        raise ZeroDivisionError
    with claim_folder(tmp_path / "old"):
        pass
    assert os.listdir(tmp_path / "old") == []


@pytest.mark.parametrize(
    ("held", "options", "mend"),
    [
        ("notes.txt", {}, r"holds notes\.txt; nothing is overwritten\. Choose another\."),
        ("notes.txt", {"ours": ("card-*",)}, r"holds notes\.txt; nothing is overwritten\. Choose another\."),
        ("notes.txt", {"ours": ("card-*",), "resume": True}, r"holds notes\.txt; .* Choose another\."),
        ("card-1", {"ours": ("card-*",)}, r"holds card-1; .* Continue it with --resume"),
    ],
)
def test_folder_with_files_is_refused_and_untouched(tmp_path, held, options, mend):
    (tmp_path / held).write_text("mine")
    message = rf"new or empty folder for --to, .* {mend}"
    with pytest.raises(ConfigError, match=message), claim_folder(tmp_path, what="--to", **options):
        pass
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


def test_resumed_folder_may_hold_files_of_the_command(tmp_path):
    (tmp_path / "card-1").touch()
    with claim_folder(tmp_path, resume=True, ours=("card-*",)):
        pass
    assert os.listdir(tmp_path) == ["card-1"]


def test_second_claim_is_refused_until_the_first_is_over(tmp_path):
    with claim_folder(tmp_path / "out"):
        with (
            pytest.raises(ConfigError, match=r"Another command is writing to .*out right now"),
            claim_folder(tmp_path / "out", resume=True),
        ):
            pass
        assert (tmp_path / "out").is_dir()
    with claim_folder(tmp_path / "out"):
        pass


@pytest.mark.parametrize("name", ["file", "file/deeper/out"])
def test_path_that_can_not_be_a_folder_is_refused(tmp_path, name):
    (tmp_path / "file").write_text("mine")
    with (
        pytest.raises(ConfigError, match=r"(got the file|Can't write to) .*file"),
        claim_folder(tmp_path / name),
    ):
        pass
    assert (tmp_path / "file").read_text() == "mine"


def _claim_and_die(folder):
    with claim_folder(folder):
        (folder / ".partial-1-card.json").write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)


def test_lock_and_half_files_of_a_killed_process_are_in_nobodys_way(tmp_path):
    process = multiprocessing.get_context("spawn").Process(target=_claim_and_die, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert len(os.listdir(tmp_path)) == 2
    with claim_folder(tmp_path) as folder:
        (folder / "card.json").write_text("{}")
    assert (tmp_path / "card.json").exists()
