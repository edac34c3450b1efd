"""`--config FILE`: names, precedence, nesting, and the file that a run leaves behind."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from vlac_gym.cli import COMMANDS, main, rollout
from vlac_gym.cli.parsing import parse_arguments
from vlac_gym.errors import ConfigError
from vlac_gym.files.config_file import read_config, write_config


@dataclass(frozen=True)
class Recipe:
    steps: int = 5
    rate: float = 0.5


@dataclass(frozen=True)
class Options:
    out: Path
    video: bool = True
    limit: int | None = 3
    names: tuple[str, ...] = ("a",)
    recipe: Recipe = field(default_factory=Recipe)


def parse(tmp_path: Path, text: str, *args: str) -> Options:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return parse_arguments(
        Options, ["--config", str(path), *args], prog="vlac-gym test", description="A test."
    )


def test_file_gives_every_kind_of_option(tmp_path):
    text = "out: runs/a\nvideo: false\nlimit: null\nnames: [x, y]\nrecipe: {steps: 7, rate: 1e-3}\n"
    assert parse(tmp_path, text) == Options(Path("runs/a"), False, None, ("x", "y"), Recipe(7, 0.001))


def test_command_line_beats_the_file(tmp_path):
    got = parse(
        tmp_path,
        "out: a\nvideo: false\nlimit: 1\nnames: [x, y]\nrecipe: {steps: 7}\n",
        *("--out", "b", "--video", "--names", "z", "--recipe.steps", "9"),
    )
    assert got == Options(Path("b"), True, 1, ("z",), Recipe(9))


def test_options_in_no_file_keep_their_defaults(tmp_path):
    assert parse(tmp_path, "out: a") == Options(Path("a"))
    assert parse(tmp_path, "", "--out", "a") == Options(Path("a"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("out: a\nlimmit: 1", r"Unknown option in .*run.yaml 'limmit'.*Did you mean 'limit'\?"),
        ("out: a\nrecipe: {step: 1}", r"'recipe.step'.*Did you mean 'recipe.steps'\?"),
        ("out: a\nlimit: many", "--limit"),
        ("out: a\nlimit: {a: 1}", "Expected a value for limit in .*run.yaml"),
        ("- a", "Expected options as 'name: value' lines"),
        ("out: [", "can't be read"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        parse(tmp_path, text)


def test_absent_and_repeated_files_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"absent.yaml can't be read"):
        parse_arguments(Options, ["--config", str(tmp_path / "absent.yaml")], prog="p", description="d")
    with pytest.raises(ConfigError, match="Expected one --config, got a, b"):
        parse_arguments(Options, ["--config", "a", "--config=b"], prog="p", description="d")


def test_written_options_read_back_as_the_same(tmp_path):
    options = Options(Path("runs/a"), names=("x", "é"), limit=None)
    write_config(tmp_path, options)
    assert parse(tmp_path, (tmp_path / "config.yaml").read_text()) == options


@pytest.mark.parametrize("command", sorted(set(COMMANDS)))
def test_every_command_takes_a_config(command, tmp_path, capsys):
    path = tmp_path / "run.yaml"
    path.write_text("no_such_option: 1\n")
    assert main([command, "--config", str(path)]) == 2
    assert "'no_such_option'" in capsys.readouterr().err


def test_rollout_runs_from_a_config_and_leaves_the_effective_one(scripted_libero, tmp_path, monkeypatch):
    monkeypatch.setattr(rollout, "limit_torch_threads", lambda count, **facts: None)
    path = tmp_path / "run.yaml"
    path.write_text("policy: zero\nmax_episode_steps: 6\nvideo: false\nepisodes: 2\nseed: 5\n")
    out = tmp_path / "run"
    assert main(["rollout", "--config", str(path), "--out", str(out), "--episodes", "1"]) == 0
    written = read_config(out / "config.yaml")
    assert (written["out"], written["episodes"], written["seed"]) == (str(out), 1, 5)
    assert (written["policy"], written["critic"]) == ("zero", "oracle")
    # And it runs again from what it wrote.
    again = tmp_path / "again"
    assert main(["rollout", "--config", str(out / "config.yaml"), "--out", str(again)]) == 0
    keys = ("seed", "steps", "return", "success", "init_state_id")
    first, second = (json.loads((run / "summary.json").read_text())["episodes"] for run in (out, again))
    assert [[e[k] for k in keys] for e in first] == [[e[k] for k in keys] for e in second] != []
    assert read_config(again / "config.yaml") == written | {"out": str(again)}
    assert yaml.safe_load((again / "config.yaml").read_text())["video"] is False
