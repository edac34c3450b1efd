"""One run of RLinf's own workers as a program: `python rlinf_run.py CONFIG RESULT`.

It does what RLinf's `EmbodiedRunner` does between weight sync and training, on a Ray of its own, and saves what came
of it with torch: `batch`, `metrics`, `returns`, `evaluation`, or the `error` of the workers' start.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray
import torch
from omegaconf import OmegaConf
from rlinf.algorithms.registry import calculate_adv_and_returns
from rlinf.data.embodied_io_struct import convert_trajectories_to_batch
from rlinf.scheduler import Channel, Cluster
from rlinf.utils.metric_utils import compute_evaluate_metrics
from rlinf.utils.placement import HybridComponentPlacement
from rlinf.utils.utils import preprocess_embodied_batch
from rlinf.workers.env.env_worker import EnvWorker
from rlinf_policy import FixedPolicy


class Run:
    """RLinf's cluster, channels, env worker group and a policy group."""

    def __init__(self, cfg: Any) -> None:
        self.cfg = cfg
        cluster = Cluster(cluster_cfg=cfg.cluster)
        placement = HybridComponentPlacement(cfg, cluster)
        self.rollout = FixedPolicy.create_group(cfg).launch(
            cluster, name=cfg.rollout.group_name, placement_strategy=placement.get_strategy("rollout")
        )
        self.env = EnvWorker.create_group(cfg).launch(
            cluster, name=cfg.env.group_name, placement_strategy=placement.get_strategy("env")
        )
        self._channels = {name: Channel.create(name) for name in ("Env", "Rollout", "Actor")}

    def init_workers(self) -> None:
        """As RLinf's runner, but errors come here instead of ending the process."""
        for group in (self.rollout, self.env):
            ray.get(group.worker_info_list[0].worker.init_worker.remote(), timeout=300)

    def train_batch(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The batch that an actor would train on, masks included, and the env's metrics."""
        env = self.env.interact(
            input_channel=self._channels["Env"],
            rollout_channel=self._channels["Rollout"],
            reward_channel=None,
            actor_channel=self._channels["Actor"],
        )
        rollout = self.rollout.generate(
            input_channel=self._channels["Rollout"], output_channel=self._channels["Env"]
        )
        stages = self.cfg.rollout.pipeline_stage_num
        trajectories = [self._channels["Actor"].get() for _ in range(stages)]
        metrics = env.wait()[0]
        rollout.wait()
        batch = convert_trajectories_to_batch(trajectories)
        train = self.cfg.env.train
        batch = preprocess_embodied_batch(
            batch,
            rollout_epoch=train.rollout_epoch,
            auto_reset=train.auto_reset,
            ignore_terminations=train.ignore_terminations,
            reward_type=self.cfg.algorithm.reward_type,
            filter_rewards=False,
            group_size=1,
        )
        return batch, metrics

    def evaluate(self) -> dict[str, Any]:
        """RLinf's evaluation metrics."""
        env = self.env.evaluate(
            input_channel=self._channels["Env"], rollout_channel=self._channels["Rollout"]
        )
        rollout = self.rollout.evaluate(
            input_channel=self._channels["Rollout"], output_channel=self._channels["Env"]
        )
        results = env.wait()
        rollout.wait()
        return compute_evaluate_metrics([result for result in results if result is not None])


def advantages(cfg: Any, batch: dict[str, Any]) -> dict[str, Any]:
    """RLinf's advantages and returns of the batch, as its actor computes them."""
    algorithm = cfg.algorithm
    return calculate_adv_and_returns(
        task_type="embodied",
        adv_type=algorithm.adv_type,
        rewards=batch["rewards"],
        dones=batch["dones"],
        values=batch["prev_values"].expand(-1, -1, cfg.actor.model.num_action_chunks),
        gamma=algorithm.gamma,
        gae_lambda=algorithm.gae_lambda,
        group_size=1,
        reward_type=algorithm.reward_type,
        loss_mask=batch.get("loss_mask"),
        loss_mask_sum=batch.get("loss_mask_sum"),
        normalize_advantages=False,
    )


@contextlib.contextmanager
def own_ray() -> Iterator[None]:
    """A Ray of this run's own, so that RLinf, which joins any that it finds, finds this one."""
    with contextlib.ExitStack() as stack:
        for attempt in range(4):
            head = stack.enter_context(ray_head())
            if head is not None:
                break
            print(
                f"Ray gave up on its agents, which had 15 s to start (attempt {attempt + 1}).",
                file=sys.stderr,
            )
        else:
            raise SystemExit("Ray does not start on this machine.")
        yield
        ray.shutdown()


@contextlib.contextmanager
def ray_head() -> Iterator[subprocess.Popen[bytes] | None]:
    """A node, or None if it ended before its agents were up."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    folder = tempfile.mkdtemp(prefix="ray")  # short: Ray makes sockets in it
    # `ray start` wants a token, `ray.init` then does not send one.
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_ADDRESS": f"127.0.0.1:{port}"}
    command = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--num-cpus=8"]
    command += [f"--port={port}", "--include-dashboard=false", f"--temp-dir={folder}"]
    head = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        while head.poll() is None and not list(
            Path(folder).glob("session_latest/dashboard_agent_listen_port*")
        ):
            time.sleep(0.5)
        yield head if head.poll() is None else None
    finally:
        head.terminate()
        try:
            head.wait(60)  # it drains for half a minute
        except subprocess.TimeoutExpired:
            head.kill()
            head.wait()
        shutil.rmtree(folder, ignore_errors=True)


def main(config: str, result: str) -> int:
    cfg = OmegaConf.load(config)
    outcome: dict[str, Any] = {}
    with own_ray():
        run = Run(cfg)
        try:
            run.init_workers()
        except ray.exceptions.RayTaskError as e:
            torch.save({"error": str(e)}, result)
            return 0
        started = time.monotonic()
        outcome["batch"], outcome["metrics"] = run.train_batch()
        outcome["rollout_s"] = time.monotonic() - started
        outcome["returns"] = advantages(cfg, outcome["batch"])
        if cfg.runner.val_check_interval > 0:
            outcome["evaluation"] = run.evaluate()
        outcome["metrics"] = dict(outcome["metrics"])
        torch.save(outcome, result)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
