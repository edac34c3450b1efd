"""What rl_iteration.py says of an iteration on worlds; the worlds are points."""

import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from benchmark_scripts import BENCHMARKS, load_benchmark
from tensor_worlds import point_envs


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return load_benchmark("rl_iteration")


def test_envs_that_are_over_wait_for_the_longest_episode(benchmark: ModuleType) -> None:
    together = {0: "a", 1: "a", 2: "b"}
    assert benchmark.idle_share([[(0, 8), (1, 4)], [(1, 6), (0, 6)]], together) == pytest.approx(4 / 28)
    assert benchmark.idle_share([[(0, 8), (1, 8), (2, 3)]], together) == 0.0


def test_worlds_are_clocked_until_the_device_is_done(benchmark: ModuleType) -> None:
    now_s, log = 0.0, []

    def takes(seconds: float, name: str) -> None:
        nonlocal now_s
        now_s += seconds
        log.append(name)

    worlds = SimpleNamespace(step=lambda: takes(1, "step"), pictures=lambda: takes(3, "pictures"))
    home = SimpleNamespace(_worlds=worlds)
    env = SimpleNamespace(
        unwrapped=SimpleNamespace(_executor=SimpleNamespace(_homes={0: (home, 0), 1: (home, 1)}))
    )
    benchmark.time = SimpleNamespace(perf_counter=lambda: now_s)

    def iterate() -> None:
        worlds.step()
        worlds.step()
        worlds.pictures()

    # Each takes a second more on the device, and one that was begun before is not counted.
    share = benchmark.picture_share_of_worlds(env, iterate, lambda: takes(1, "wait"))
    assert share == pytest.approx(4 / 8)
    assert log == ["wait", "step", "wait", "wait", "step", "wait", "wait", "pictures", "wait"]


def test_the_parts_of_an_iteration_on_worlds_are_all_of_it(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    load = benchmark.load_example

    def with_points() -> ModuleType:
        example = load()
        monkeypatch.setitem(sys.modules, "train_ppo", example)
        example.warp_envs = lambda scenes, tasks, **options: point_envs(
            "cpu", tasks, options["max_episode_steps"]
        )
        return example

    def quarter(iterations: list[list[tuple[int, int]]], group_of: dict[int, int]) -> float:
        assert [sorted(env for env, _ in episodes) for episodes in iterations] == [[0, 1, 2, 3]] * 2
        assert len(set(group_of.values())) == 1
        assert list(group_of) == [0, 1, 2, 3]
        steps.extend(length for episodes in iterations for _, length in episodes)
        return 0.25

    steps: list[int] = []
    benchmark.load_example, benchmark.idle_share = with_points, quarter
    options = "--tasks points:7 --num-envs 4 --image-size 16 --step-limit 6 --chunk-size 4 --critic random --learn all"
    options += " --train-init-states 0-1 --eval-init-states 2 --minibatch-size 6 --device cpu --measured 2"
    monkeypatch.setattr(sys, "argv", ["rl_iteration.py", "--scenes", str(tmp_path), *options.split()])
    benchmark.main()
    text = capsys.readouterr().out
    assert re.search(rf"^4 envs in worlds, 2 iterations, {sum(steps)} env steps, critic random$", text, re.M)
    shares = {name: float(share) for name, share in re.findall(r"^(\w+) +[\d.]+ s +([\d.]+)%$", text, re.M)}
    assert list(shares) == ["physics", "pictures", "waiting", "critic", "policy", "update", "rest"]
    assert sum(shares.values()) == pytest.approx(100, abs=0.5)
    assert shares["waiting"] == pytest.approx((shares["physics"] + shares["pictures"]) / 3, abs=0.2)
    assert min(shares["physics"], shares["pictures"], shares["policy"], shares["update"]) > 0


def test_what_goes_on_beside_the_envs_is_no_part_of_the_time(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(benchmark, "picture_share", lambda *args: 0.25)
    options = (
        "--tasks reach:0 --num-envs 2 --envs-per-worker 1 --episodes-per-env 2 --min-ready 1 --image-size 16"
    )
    options += (
        " --step-limit 8 --chunk-size 4 --critic random --learn all --train-init-states 0-1 --device cpu"
    )
    options += " --eval-init-states 2 --minibatch-size 6"
    monkeypatch.setattr(sys, "argv", ["rl_iteration.py", *options.split()])
    benchmark.main()
    text = capsys.readouterr().out
    shares = {name: float(share) for name, share in re.findall(r"^(\w+) +[\d.]+ s +([\d.]+)%$", text, re.M)}
    assert list(shares) == ["physics", "pictures", "waiting", "update", "rest"]
    assert sum(shares.values()) == pytest.approx(100, abs=0.5)
    assert re.findall(r"^beside the envs, in none of these: (\w+) ", text, re.M) == ["critic", "policy"]
    assert shares["physics"] + shares["pictures"] + shares["waiting"] > 20  # what the play took
    assert shares["pictures"] == pytest.approx(shares["physics"] / 3, abs=0.2)


def test_worlds_that_move_together_refuse_min_ready(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    options = f"--tasks points:7 --num-envs 4 --learn all --scenes {tmp_path} --min-ready 2"
    monkeypatch.setattr(sys, "argv", ["rl_iteration.py", *options.split()])
    with pytest.raises(SystemExit, match="no --min-ready with --scenes"):
        benchmark.main()
