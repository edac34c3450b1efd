"""Replicas on a local Ray: the same answers, one replica killed and no change for the client, scaling and placement."""

import ast
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from vlac_gym.critic import make_critic
from vlac_gym.critic.vlac.tiny_checkpoint import make_tiny_checkpoint
from vlac_gym.errors import ConfigError

with warnings.catch_warnings():
    # Ray's own modules use what pydantic calls deprecated.
    warnings.simplefilter("ignore", DeprecationWarning)
    pytest.importorskip("ray", reason="needs vlac-gym[ray]")
    from vlac_gym.service.ray_serve import RayOptions


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"replicas": 0}, "at least 1 replica, got 0"),
        ({"replicas": 2, "min_replicas": 3}, r"min_replicas in \[0, 2\], got 3"),
        ({"gpus_per_replica": -1.0}, "gpus_per_replica of at least 0"),
        ({"target_requests": 0.0}, "target_requests above 0"),
    ],
)
def test_options_out_of_range_are_refused(options, text):
    with pytest.raises(ConfigError, match=text):
        RayOptions(**options)


def replica_pids() -> list[int]:
    """Processes whose title is that of our replicas."""
    listing = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 1) for line in listing.splitlines()]
    return [int(pid) for pid, args in rows if "ServeReplica:vlac-critic" in args]


@contextmanager
def ray_server(spec: str, port: int, *options: str) -> Iterator[subprocess.Popen[str]]:
    """`vlac-gym serve --ray` as a process, once all its replicas are healthy."""
    command = ["serve", "--critic", spec, "--ray", "--port", str(port), *options]
    program = "import sys; from vlac_gym.cli import main; sys.exit(main(sys.argv[1:]))"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    server = subprocess.Popen(
        [sys.executable, "-c", program, *command], stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        line = server.stdout.readline()
        while line and not line.startswith("Ready at"):
            line = server.stdout.readline()
        assert line == f"Ready at http://127.0.0.1:{port}\n"
        yield server
    finally:
        if server.poll() is None:
            server.kill()
            server.wait()
        server.stdout.close()


class TwoNodes:
    """A Ray cluster of two nodes on this machine; only the second has a GPU (to Ray's books) and `critic`."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
        self._cluster.add_node(num_cpus=4, num_gpus=1, resources={"critic": 1})
        self.address = self._cluster.address

    def left(self, resource: str) -> float:
        """How much of a resource nobody holds, of the whole cluster."""
        program = (
            f"import ray; ray.init(address={self.address!r}, log_to_driver=False);"
            "print(ray.available_resources())"
        )
        shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        return float(ast.literal_eval(shown.stdout.splitlines()[-1])[resource])

    def shutdown(self) -> None:
        """Ends both nodes."""
        self._cluster.shutdown()


@pytest.fixture
def two_nodes():
    nodes = TwoNodes()
    yield nodes
    nodes.shutdown()


@pytest.mark.slow
def test_replicas_answer_like_one_critic_and_one_may_die(tmp_path, connect, random_frames, free_port):
    checkpoint = make_tiny_checkpoint(tmp_path / "tiny")
    spec = f"transformers:{checkpoint}?out_of_scale=clip"
    frames = random_frames(12, 32, 32)
    tasks = ["pick up the bowl"] * 12
    local = make_critic(spec)
    expected = local.success_prob(frames, tasks), local.value(frames, tasks[0])
    with ray_server(spec, free_port, "--replicas", "2") as server:
        critic = connect(f"http://127.0.0.1:{free_port}")
        instances = set()
        deadline = time.monotonic() + 60
        while len(instances) < 2 and time.monotonic() < deadline:
            instances.add(critic.server_info()["instance"])
        assert len(instances) == 2
        assert np.array_equal(critic.success_prob(frames, tasks), expected[0])
        assert np.array_equal(critic.value(frames, tasks[0]), expected[1])
        with pytest.raises(ConfigError, match="501 unsupported: One of 2 replicas would sleep"):
            critic.sleep()

        pids = replica_pids()
        assert len(pids) == 2
        killer = threading.Timer(0.3, os.kill, (pids[0], signal.SIGKILL))
        killer.start()
        for _ in range(30):
            assert np.array_equal(critic.success_prob(frames, tasks), expected[0])
        killer.join()
        assert np.array_equal(critic.value(frames, tasks[0]), expected[1])

        deadline = time.monotonic() + 90
        while len(replica_pids()) < 2 and time.monotonic() < deadline:
            time.sleep(0.5)
        revived = replica_pids()
        assert len(revived) == 2
        assert pids[0] not in revived
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0
    local.close()


@pytest.mark.slow
def test_replicas_follow_the_load_on_the_node_that_offers_the_resource(
    tmp_path, connect, random_frames, free_port, two_nodes
):
    spec = f"transformers:{make_tiny_checkpoint(tmp_path / 'tiny')}?out_of_scale=clip"
    options = ("--ray-address", two_nodes.address, "--ray-resource", "critic", "--gpus-per-replica", "0.4")
    with ray_server(spec, free_port, "--replicas", "3", "--min-replicas", "1", *options) as server:
        # One replica, which holds a thousandth of what only the second node has, and 0.4 of its GPU.
        assert len(replica_pids()) == 1
        assert two_nodes.left("critic") == pytest.approx(0.999)
        assert two_nodes.left("GPU") == pytest.approx(0.6)

        is_enough = threading.Event()
        critic = connect(f"http://127.0.0.1:{free_port}")

        def ask() -> None:
            while not is_enough.is_set():
                critic.success_prob(random_frames(1, 32, 32), ["pick up the bowl"])

        askers = [threading.Thread(target=ask) for _ in range(48)]
        for asker in askers:
            asker.start()
        deadline = time.monotonic() + 120
        while len(replica_pids()) < 2 and time.monotonic() < deadline:
            time.sleep(0.5)
        replicas = len(replica_pids())
        is_enough.set()
        for asker in askers:
            asker.join()
        # 48 requests at 16 each ask for three, and one GPU has room for two.
        assert replicas == 2
        assert two_nodes.left("critic") == pytest.approx(0.998)
        assert two_nodes.left("GPU") == pytest.approx(0.2)
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0
