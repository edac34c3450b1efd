import importlib.util
import subprocess
import time

import pytest

from vlac_gym.cli import doctor_checks, main
from vlac_gym.cli.doctor_checks import (
    check_critic,
    check_libero,
    check_mujoco,
    check_rendering,
    check_start_cache,
    check_torch,
    check_video,
)
from vlac_gym.errors import (
    CriticConnectionError,
    CriticOverloadedError,
    CriticProtocolError,
    CriticTimeoutError,
)


def test_this_machine_can_render_and_has_libero_and_ffmpeg(capsys):
    assert main(["doctor", "--critic", "scripted:0.25"]) == 0

    printed = capsys.readouterr().out
    assert "BROKEN" not in printed
    for name in ("python", "mujoco", "rendering", "libero", "starts", "torch", "video", "critic"):
        assert f" {name} " in printed
    assert "answered 0.25" in printed
    assert printed.endswith("Everything needed is here.\n")


def test_rendering_that_fails_names_the_apt_packages(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "nonsense")
    result = check_rendering()

    assert result.status == "broken"
    assert "nonsense" in result.found
    assert "apt-get install -y libegl1" in result.mend


def test_broken_parts_set_the_exit_status(monkeypatch, capsys):
    monkeypatch.setenv("MUJOCO_GL", "nonsense")

    assert main(["doctor"]) == 1
    assert "broken: rendering" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("version", "reason"),
    [("3.17.0", "since MuJoCo 3.4.0 objects"), ("3.3.7", "since MuJoCo 3.3.3 textures")],
)
def test_a_mujoco_that_spoils_liberos_scenes_is_broken(monkeypatch, version, reason):
    monkeypatch.setattr(doctor_checks.importlib.metadata, "version", lambda name: version)
    result = check_mujoco()

    assert result.status == "broken"
    assert result.found.startswith(f"{version}: {reason}")
    assert result.mend == 'pip install "mujoco>=3.3,<3.3.3"'


def test_kept_starts_are_counted(monkeypatch, tmp_path):
    monkeypatch.delenv("VLAC_GYM_START_CACHE", raising=False)
    assert check_start_cache().found == "not kept on disk; VLAC_GYM_START_CACHE can name a folder for them"

    (tmp_path / "a.start").write_bytes(bytes(1_500_000))
    monkeypatch.setenv("VLAC_GYM_START_CACHE", str(tmp_path))
    assert check_start_cache().found == f"1 in {tmp_path}, 1.5 of at most 134 MB"

    monkeypatch.setenv("VLAC_GYM_START_CACHE", str(tmp_path / "a.start"))
    assert check_start_cache().status == "broken"


def test_a_missing_mujoco_names_the_extra(monkeypatch):
    def version(name):
        raise doctor_checks.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(doctor_checks.importlib.metadata, "version", version)
    assert (check_mujoco().status, check_mujoco().mend) == ("broken", 'pip install "vlac-gym[libero]"')


@pytest.mark.parametrize(
    ("check", "package", "status", "extra"),
    [
        (check_rendering, "mujoco", "broken", "vlac-gym[libero]"),
        (check_libero, "libero", "broken", "vlac-gym[libero]"),
        (check_torch, "torch", "note", "vlac-gym[vlac]"),
        (check_video, "imageio_ffmpeg", "broken", "vlac-gym[video]"),
    ],
)
def test_missing_package_names_its_extra(check, package, status, extra, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
    result = check()

    assert result.status == status
    assert extra in result.mend


def test_libero_without_meshes_is_broken(monkeypatch, tmp_path):
    install = doctor_checks.find_libero()
    bare = type(install)(**{**vars(install), "assets": tmp_path})
    monkeypatch.setattr(doctor_checks, "find_libero", lambda: bare)

    assert check_libero().found == f"no meshes at {tmp_path}"


def test_hanging_check_has_a_deadline(monkeypatch):
    def hang(command, timeout, **kwargs):
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(subprocess, "run", hang)
    assert check_rendering().found == "no answer in 120 s"


def test_a_lost_server_is_told_at_once(capsys):
    started_at = time.monotonic()
    result = check_critic("http://127.0.0.1:1")
    assert time.monotonic() - started_at < 5.0
    assert result.status == "broken"
    assert "No connection to the critic at http://127.0.0.1:1" in result.found
    assert "vlac-gym serve" in result.mend


def test_who_is_asked_is_said_before_the_answer_is_waited_for(monkeypatch, capsys):
    monkeypatch.setattr("vlac_gym.cli.doctor.check_critic", lambda spec: pytest.fail(capsys.readouterr().out))
    for check in ("packages", "rendering", "libero", "torch", "video"):
        monkeypatch.setattr(f"vlac_gym.cli.doctor.check_{check}", lambda: doctor_checks.Check("x", "ok", ""))
    with pytest.raises(pytest.fail.Exception, match=r"asking scripted:0.25 …"):
        main(["doctor", "--critic", "scripted:0.25"])


@pytest.mark.parametrize(
    ("error", "mend"),
    [
        (CriticConnectionError("refused"), "vlac-gym serve"),
        (CriticTimeoutError("late"), "/readyz"),
        (CriticOverloadedError("full"), "/v1/wake"),
        (CriticProtocolError("version 2"), "on the server too"),
    ],
)
def test_unreachable_critic_says_what_to_do(error, mend, monkeypatch):
    def fail(spec):
        raise error

    monkeypatch.setattr(doctor_checks, "make_critic", fail)
    result = check_critic("http://critic-host:8400")

    assert result.status == "broken"
    assert type(error).__name__ in result.found
    assert mend in result.mend


def test_privileged_critic_is_called_privileged():
    assert "privileged" in check_critic("oracle").found


def test_unknown_critic_is_wrong_usage(capsys):
    assert main(["doctor", "--critic", "orakel"]) == 2
    assert "Did you mean 'oracle'?" in capsys.readouterr().err
