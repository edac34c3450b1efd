"""Real verl-vla env workers, simulators, env loop, episode buffer and TD loss, on real LIBERO and scripted envs.

VERL_VLA_PATH=/path/to/verl-vla python -m pytest -m trainer tests/trainers/verl_vla
"""

import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from example_commands import printed_config

from verl_env_adapter.common.env_settings import EnvSettings
from verl_env_adapter.common.start_states import StartPlan, start_counts

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("default"), pytest.mark.timeout(900)]

SUITE = "libero_spatial"
ROOT = Path(__file__).parents[3]


def seed_with_one_task_each() -> int:
    """A seed with which stage 0 begins with task 1 (done for the critic) and stage 1 with task 0 (never)."""
    counts = start_counts(EnvSettings(suite=SUITE))
    for seed in range(100):
        tasks = [
            StartPlan(counts, [0, 1], seed=seed, process=stage, num_processes=2).draw(1)[0].task_id
            for stage in (0, 1)
        ]
        if tasks == [1, 0]:
            return seed
    raise AssertionError("no such seed below 100")


@pytest.fixture
def libero_cluster(worker_config, start_cluster, critic):
    block = {
        "env": {"suite": SUITE, "tasks": [0, 1], "image_size": 64, "chunk": 4, "max_episode_steps": 10},
        "critic": {"spec": critic.url},
        "rule": {"value_stride": 2},
    }
    config = worker_config(block, num_envs=1, auto_reset=False)
    object.__setattr__(config.env_worker.simulator.libero, "seed", seed_with_one_task_each())
    return start_cluster(config)


def scripted_block(**critic):
    env = {"id": "scripted_arm:ScriptedArm-v0", "chunk": 4, "max_episode_steps": 10}
    return {"env": env, "critic": {"spec": "scripted:0.1", **critic}}


def test_what_the_wrapper_paid_is_what_the_trainer_learns_from(
    libero_cluster, env_loop, policy, critic, lerobot_names
):
    (workers,) = libero_cluster.worker_groups.values()
    loop = env_loop(libero_cluster, policy)
    batch = loop.generate_sequences(workers.reset_env(mode="train"))
    (value,) = critic.values()
    assert 0.0 < value < 1.0
    # Lane 0 is done at step 5 (min_steps, one past the first chunk); lane 1 is cut at step 10.
    paid = np.zeros((2, 3, 4), np.float32)
    paid[0, 1, 0], paid[1, 2, 1] = 1.0, value
    assert batch.batch["next.reward"].numpy().tolist() == paid.tolist()
    ended = [[[False] * 4, [True] * 4, [True] * 4], [[False] * 4, [False] * 4, [False, True, True, True]]]
    assert batch.batch["next.terminated"].tolist() == ended
    assert batch.batch["next.truncated"].tolist() == [[[False] * 4] * 3, ended[1]]
    assert batch.batch["next.success"].tolist() == [ended[0], [[False] * 4] * 3]
    assert batch.batch["obs.observation.images.image"].shape == (2, 3, 64, 64, 3)
    assert batch.non_tensor_batch["obs.task_id"][:, 0].tolist() == [1, 0]
    check_transitions(batch, value)
    check_evaluation(workers, loop, critic)


def check_transitions(batch, value):
    """Through the trainer's own episode buffer, transitions and TD loss."""
    import torch
    from verl_vla.trainer.sac.episode_buffer import EpisodeBuffer
    from verl_vla.trainer.sac.sac_ray_trainer import prepare_sac_actor_input
    from verl_vla.workers.engine.sac.training_worker import SACTrainingWorker

    episodes = EpisodeBuffer(auto_reset=False).ingest(batch)
    config = SimpleNamespace(step_penalty=0.0)
    done, cut = [
        prepare_sac_actor_input(episode, trainer_config=config, global_steps=0).batch for episode in episodes
    ]
    rewards = [done["info.rewards"], cut["info.rewards"]]
    assert [reward.tolist() for reward in rewards] == [[0.0, 1.0], [0.0, 0.0, np.float32(value)]]
    assert done["info.terminateds"].tolist() == [0.0, 1.0]
    assert cut["info.terminateds"].tolist() == [0.0, 0.0, 1.0]
    learner = SimpleNamespace(
        actor_config=SimpleNamespace(critic=SimpleNamespace(gamma=0.9)),
        _get_alpha=lambda: torch.tensor(0.0),
        cql_enabled=False,
    )
    # Q of every next state is 0.5: the last target is the value alone, not value + 0.45.
    targets = torch.tensor([[0.45], [0.45], [value]])
    loss, _ = SACTrainingWorker._calculate_critic_loss(
        learner,
        q_predict=targets,
        q_policy=None,
        q_target=torch.full((3,), 0.5),
        rewards=cut["info.rewards"],
        terminateds=cut["info.terminateds"],
        next_log_prob=None,
        valids=cut["info.valids"],
    )
    assert float(loss) == pytest.approx(0.0, abs=1e-12)


def check_evaluation(workers, loop, critic):
    """The trainer's evaluation runs on simulators of its own, in order, and asks the critic nothing."""
    asked = len(critic.values())
    batch = loop.generate_sequences(workers.reset_env(mode="eval", reset_eval=True), eval=True)
    assert not batch.batch["next.reward"].any()
    assert not batch.batch["next.terminated"].any()
    assert batch.batch["next.truncated"][:, 2].tolist() == [[False, True, True, True]] * 2
    assert batch.non_tensor_batch["obs.eval_episode_id"][:, 0].tolist() == [0, 1]
    assert len(critic.values()) == asked
    assert workers.get_eval_benchmark_size() == [100]


def test_stages_of_one_worker_overlap(worker_config, start_cluster, env_loop, policy, monkeypatch):
    from verl_vla.train_cluster import cluster as cluster_module

    block = scripted_block()
    block["env"]["id"] = "slow_arm:SlowArm-v0"
    block["env"]["max_episode_steps"] = 100
    config = worker_config(block, num_envs=1, modes=["train"], auto_reset=False)

    def seconds() -> float:
        cluster = start_cluster(config)
        (workers,) = cluster.worker_groups.values()
        reset = workers.reset_env(mode="train")
        loop = env_loop(cluster, policy)
        reset.get()
        begun = time.perf_counter()
        loop.generate_sequences(reset)
        return time.perf_counter() - begun

    overlapped = seconds()
    mapping = cluster_module.TrainCluster._role_worker_mapping
    monkeypatch.setattr(cluster_module.TrainCluster, "_role_worker_mapping", mapping.__wrapped__)
    serial = seconds()
    print(f"overlapped {overlapped:.2f} s, serial {serial:.2f} s")
    # 3 interactions of 4 steps of 0.1 s: 1.2 s a stage.
    assert serial >= 2.4
    assert overlapped < 0.75 * serial


def in_process(config, **options):
    from omegaconf import OmegaConf

    from verl_env_adapter.verl_vla.env import VLACLiberoEnv

    return VLACLiberoEnv(OmegaConf.structured(config.env_worker), 0, 1, **options)


@pytest.mark.parametrize("by_steps", [False, True])
def test_auto_reset_starts_the_next_episode_after_the_chunk(worker_config, by_steps, monkeypatch):
    # One script for both envs, in turn: done at step 6, the second of the second chunk.
    script = ",".join(["0.1"] * 10 + ["0.95"] * 2)
    block = scripted_block(spec=f"scripted:{script}")
    env = in_process(worker_config(block, num_envs=2, auto_reset=True))
    if by_steps:
        monkeypatch.setattr(env, "_takes_whole_chunks", lambda: False)
    try:
        env.reset(options={"env_idx": [0, 1], "mode": "train"})
        still = np.zeros((2, 4, 7), np.float32)
        env.step(still)
        obs, reward, terminated, truncated, success = env.step(still)
        # Done at step 6, the second of this chunk.
        assert reward.tolist() == [[0.0, 1.0, 0.0, 0.0]] * 2
        assert terminated.tolist() == success.tolist() == [[False, True, True, True]] * 2
        assert not truncated.any()
        assert [item["observation.state"][0] for item in obs["observation"]] == [0.0, 0.0]
        assert [item["observation.state"][0] for item in env.final_observations()] == [6.0, 6.0]
        cached, _ = env.reset(options={"env_idx": [0, 1], "mode": "train"})
        assert [item["observation.state"][0] for item in cached["observation"]] == [0.0, 0.0]
        obs, reward, terminated, _, _ = env.step(still)
        assert not reward.any()
        assert not terminated.any()
        assert [item["observation.state"][0] for item in obs["observation"]] == [4.0, 4.0]
    finally:
        env.close()


def test_start_states_follow_the_trainers_own_planner(worker_config):
    from verl_vla.envs.libero import libero_env

    suite = SimpleNamespace(get_num_tasks=lambda: 2, get_task_init_states=lambda task: [0] * (3 - task))
    config = SimpleNamespace(task_ids=None, num_trials_per_task=None, specific_reset_id=None)
    for process in (0, 1):
        theirs = libero_env.LiberoResetStatePlanner(
            task_suite=suite,
            libero_cfg=config,
            global_process_id=process,
            global_process_count=2,
            envs_per_process=2,
            generator=np.random.default_rng(0),
        )
        ours = StartPlan({0: 3, 1: 2}, None, seed=0, process=process, num_processes=2, num_envs=2)
        rows = [
            [state.task_id, state.init_state_id, state.state_id, state.eval_episode_id]
            for state in ours.next_eval(6)
        ]
        assert rows == theirs.next_eval_states(6).tolist()
        assert ours.num_states == theirs.benchmark_size


def test_liberos_init_state_loader_survives_the_trainers_env_module():
    from libero.libero.benchmark import Benchmark

    import verl_env_adapter.verl_vla.plugin  # noqa: F401
    from verl_env_adapter.verl_vla.env import VLACLiberoEnv

    own = Benchmark.get_task_init_states
    from verl_vla.envs.libero.libero_env import LiberoEnv, LiberoResetStateMixin

    assert LiberoEnv is VLACLiberoEnv
    assert LiberoResetStateMixin.__module__ == "verl_vla.envs.libero.libero_env"
    assert Benchmark.get_task_init_states is own


def test_contradictions_and_what_loses_rewards_are_refused(worker_config):
    with pytest.raises(Exception, match=r"Did you mean .*critic"):
        worker_config({"critc": {}})
    check_host_keys()
    config = worker_config(scripted_block(), modes=["train"])
    config.env_worker.action_execution.__dict__["mode"] = "async"
    with pytest.raises(ValueError, match="every reward, end and success as zero"):
        in_process(config)
    env = in_process(worker_config(scripted_block(), modes=["train"]))
    with pytest.raises(ValueError, match="Add 'eval'"):
        env.reset(options={"mode": "eval"})
    env.close()


def check_host_keys():
    from verl_env_adapter.verl_vla.plugin import VLACLiberoConfig
    from vlac_gym.errors import ConfigError

    config = VLACLiberoConfig(task_suite_name="libero_goal", task_ids=[3], max_episode_steps=240)
    env = config.settings().env
    assert (env.suite, env.tasks, env.max_episode_steps) == ("libero_goal", (3,), 240)
    assert config.settings().truncate_as_terminal is True
    with pytest.raises(ConfigError, match="Say it in one of the two places"):
        VLACLiberoConfig(task_suite_name="libero_goal", vlac_gym={"env": {"suite": "libero_10"}})
    with pytest.raises(ConfigError, match="settle_steps"):
        VLACLiberoConfig(reset_warmup_steps=5)
    with pytest.raises(ConfigError, match="square pictures"):
        VLACLiberoConfig(camera_widths=128)


def film(config, folder):
    recorder = config.env_worker.recorder
    for target, name, value in (
        (recorder, "enable", True),
        (recorder.lerobot, "enable", False),
        (recorder.video, "root", str(folder)),
    ):
        object.__setattr__(target, name, value)


def test_recorder_films_what_the_env_said(worker_config, tmp_path):
    config = worker_config(scripted_block(), num_envs=1, modes=["train"], auto_reset=False)
    film(config, tmp_path)
    env = in_process(config)
    try:
        assert not env._takes_whole_chunks()
        env.reset(options={"env_idx": [0], "mode": "train"})
        for _ in range(3):
            _, reward, _, truncated, _ = env.step(np.zeros((1, 4, 7), np.float32))
        assert reward.tolist() == [[0.0, 0.5, 0.0, 0.0]]
        assert truncated.tolist() == [[False, True, True, True]]
        env.finish_rollout()
    finally:
        env.close()
    assert len(list(tmp_path.rglob("*.mp4"))) == 1


def losing_block():
    """The critic answers 5 times and then no more: one env loses it in the second chunk of 4 steps."""
    return scripted_block(spec="own_critics:tiring?answers=5", on_error="truncate")


def test_no_replay_pool_keeps_an_episode_that_lost_its_critic(worker_config, lerobot_names):
    import torch
    from verl import DataProto
    from verl_vla.trainer.sac import sac_ray_trainer
    from verl_vla.utils.replay_pool import SACReplayPool

    env = in_process(worker_config(losing_block(), num_envs=1, modes=["train"], auto_reset=False))
    try:
        env.reset(options={"env_idx": [0], "mode": "train"})
        chunks = [env.step(np.zeros((1, 4, 7), np.float32)) for _ in range(2)]
    finally:
        env.close()
    names = ("next.reward", "next.terminated", "next.truncated", "next.success")
    signals = {name: torch.stack(rows, dim=1) for name, rows in zip(names, list(zip(*chunks))[1:])}
    assert torch.isnan(signals["next.reward"]).tolist() == [[[False] * 4, [False, True, False, False]]]
    assert signals["next.truncated"].tolist() == [[[False] * 4, [False, True, True, True]]]

    def pool_size(lost):
        rewards = signals["next.reward"] if lost else signals["next.reward"].nan_to_num(0.0)
        fields = {"obs.state": torch.zeros(1, 2, 8), "action.action": torch.zeros(1, 2, 4, 7)}
        episode = DataProto.from_dict(
            tensors={**fields, **signals, "next.reward": rewards},
            non_tensors={"obs.task_id": np.zeros((1, 2), int)},
        )
        transitions = sac_ray_trainer.prepare_sac_actor_input(
            episode, trainer_config=SimpleNamespace(step_penalty=0.0), global_steps=0
        )
        pool = SACReplayPool(8)
        pool.add_batch(transitions, task_ids=transitions.non_tensor_batch["t0.obs.task_id"])
        return len(pool)

    assert pool_size(lost=False) == 2
    assert pool_size(lost=True) == 0


def test_no_recorder_keeps_an_episode_that_lost_its_critic(worker_config, tmp_path):
    config = worker_config(losing_block(), num_envs=1, modes=["train"], auto_reset=False)
    film(config, tmp_path)
    env = in_process(config)
    try:
        env.reset(options={"env_idx": [0], "mode": "train"})
        for _ in range(3):
            truncated = env.step(np.zeros((1, 4, 7), np.float32))[3]
        assert truncated.all()
        env.finish_rollout()
    finally:
        env.close()
    assert list(tmp_path.rglob("*.mp4")) == []


@pytest.mark.parametrize(
    ("script", "command", "module", "lines"),
    [
        (
            "run.sh",
            "vvla-train-sac",
            "verl_vla.entrypoints.train.sac",
            ["spec: http://critic:1", "auto_reset: true"],
        ),
        ("eval.sh", "vvla-eval", "verl_vla.entrypoints.eval", ["mode: eval", "max_interactions: 22"]),
    ],
)
def test_examples_commands_compose_the_trainers_configuration(tmp_path, script, command, module, lines):
    entry = tmp_path / command
    entry.write_text(f'#!/bin/sh\nexec {sys.executable} -m {module} "$@"\n')
    entry.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(os.environ["VERL_VLA_PATH"]) / "src")]),
        "POLICY": "/models/pi05",
        "VLAC_CRITIC": "http://critic:1",
    }
    printed = printed_config(ROOT / "examples/train_verl_vla" / script, environment, tmp_path)
    for line in [*lines, "_target_: verl_env_adapter.verl_vla.plugin.VLACLiberoConfig", "path: /models/pi05"]:
        assert line in printed
