"""Requests that a critic server gets per step of a trainer's envs, and what the wait for each other costs.

    python benchmarks/adapter_requests.py --num-envs 8

Two trainers' ways to step, over scripted envs in processes of their own whose steps take time, against a server in
another process: verl-vla's (all envs at once, `VerlVLASimulator`) and verl 0.9.1's (episodes as coroutines at their own
pace, `AsyncEnvs`). The baseline of each are as many pools of one env, every one of which asks for itself; verl 0.9.1's
is also compared with the same policy and envs in lockstep, every step of which waits for the slowest reply. Requests
are those that the server itself counts.
"""

import argparse
import asyncio
import multiprocessing
import re
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import gymnasium as gym
import httpx
import numpy as np

from verl_env_adapter.common.env_pool import EnvPool
from verl_env_adapter.common.settings import AdapterSettings, parse_settings
from verl_env_adapter.common.start_states import StartPlan
from verl_env_adapter.verl.async_envs import AsyncEnvs
from verl_env_adapter.verl_vla.simulator import VerlVLASimulator
from vlac_gym.critic.registry import make_critic
from vlac_gym.envs.scripted import ScriptedEnv
from vlac_gym.service.server import ServerConfig, serve

CHUNK = 8


class SleepingArm(ScriptedEnv):
    """A scripted env with verl-vla's observation and no step limit of its own, whose steps take `step_ms`."""

    def __init__(self, step_ms: float = 0.0, **kwargs: Any) -> None:
        super().__init__(max_episode_steps=None, **kwargs)
        self._step_s = step_ms / 1e3
        spaces = dict(self.observation_space.spaces)  # type: ignore[attr-defined]
        spaces["wrist_image"] = spaces["agentview_image"]
        spaces["state"] = gym.spaces.Box(-np.inf, np.inf, (8,), np.float32)
        self.observation_space = gym.spaces.Dict(spaces)

    def step(self, action: Any) -> Any:
        """As the env's, later."""
        time.sleep(self._step_s)
        return super().step(action)

    def _observation(self, step: int) -> dict[str, Any]:
        frame = self._frame(step)
        return {"agentview_image": frame, "wrist_image": frame, "state": np.full(8, step, np.float32)}


if "SleepingArm-v0" not in gym.registry:  # as a program, this module is loaded twice
    gym.register(id="SleepingArm-v0", entry_point=SleepingArm, order_enforce=False)


def run_server(urls: Any) -> None:
    """The server's process."""
    serve(lambda: make_critic("scripted:0.1"), ServerConfig(port=0), on_listening=urls.put)


@contextmanager
def critic_server() -> Iterator[str]:
    """A critic server in a process of its own; its URL."""
    context = multiprocessing.get_context("spawn")
    urls = context.Queue()
    process = context.Process(target=run_server, args=(urls,))
    process.start()
    try:
        yield urls.get(timeout=60)
    finally:
        process.terminate()
        process.join()


def answered(url: str) -> int:
    """Questions that the server has answered."""
    text = httpx.get(f"{url}/metrics").text
    counts = re.findall(
        r'^vlac_requests_total\{operation="/v1/(?:success_prob|progress|value)".*\} (\S+)$', text, re.M
    )
    return int(sum(map(float, counts)))


def batched(settings: AdapterSettings, num_envs: int, steps: int) -> float:
    """Seconds of verl-vla's steps, all envs in one simulator."""
    plan = StartPlan({0: 1}, None, seed=0, num_envs=num_envs)
    with closing(VerlVLASimulator(settings, num_envs, plan, phase="train")) as simulator:
        simulator.reset(range(num_envs))
        begun = time.perf_counter()
        for _ in range(steps):
            simulator.step(np.zeros((num_envs, CHUNK, 7), np.float32), range(num_envs))
        return time.perf_counter() - begun


def alone(settings: AdapterSettings, num_envs: int, steps: int) -> float:
    """The same, each env in a pool of its own."""
    chunk = np.zeros((1, CHUNK, 7), np.float32)
    with ExitStack() as stack:
        pools = [stack.enter_context(closing(EnvPool(settings, 1, isolated=True))) for _ in range(num_envs)]
        threads = stack.enter_context(ThreadPoolExecutor(num_envs))
        list(threads.map(lambda pool: pool.reset(mode="train"), pools))
        begun = time.perf_counter()
        for _ in range(steps):
            list(threads.map(lambda pool: pool.step_chunk(chunk), pools))
        return time.perf_counter() - begun


async def paced(envs: list[AsyncEnvs], episodes: int, steps: int, think: Callable[[], float]) -> float:
    """Seconds of episodes at their own pace, dealt out to the groups of envs, without their resets."""
    waited: list[float] = []
    ready = asyncio.Barrier(episodes)

    async def episode(i: int) -> None:
        async with envs[i % len(envs)].lend() as env:
            await env.reset(mode="train", seed=i)
            await ready.wait()
            begun = time.perf_counter()
            for _ in range(steps):
                await asyncio.sleep(think())
                await env.step_chunk(np.zeros((CHUNK, 7), np.float32))
            waited.append(time.perf_counter() - begun)

    await asyncio.gather(*(episode(i) for i in range(episodes)))
    for group in envs:
        group.close()
    return statistics.fmean(waited)


def lockstep(settings: AdapterSettings, num_envs: int, steps: int, think: Callable[[], float]) -> float:
    """Seconds of as many steps of all envs together, each after the slowest of its replies."""
    chunks = np.zeros((num_envs, CHUNK, 7), np.float32)
    with closing(EnvPool(settings, num_envs, isolated=True)) as pool:
        pool.reset(mode="train")
        begun = time.perf_counter()
        for _ in range(steps):
            time.sleep(max(think() for _ in range(num_envs)))
            pool.step_chunk(chunks)
        return time.perf_counter() - begun


def main() -> None:
    """Prints requests per step and seconds, of both ways and their baselines."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--num-envs", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20, help="action chunks of each env")
    parser.add_argument("--step-ms", type=float, default=15.0, help="of an env")
    parser.add_argument("--policy-ms", type=float, default=200.0, help="mean of a reply")
    parser.add_argument(
        "--spread", type=float, default=0.3, help="of the replies' times, as a share of the mean"
    )
    parser.add_argument("--ask-window-ms", type=float, help="critic.ask_window_s of verl 0.9.1")
    args = parser.parse_args()
    count, steps = args.num_envs, args.steps

    window = {} if args.ask_window_ms is None else {"ask_window_s": args.ask_window_ms / 1e3}

    def block(url: str, envs_per_worker: int) -> AdapterSettings:
        env = {
            "id": "adapter_requests:SleepingArm-v0",
            "chunk": CHUNK,
            "max_episode_steps": CHUNK * steps + 1,
            "kwargs": {"step_ms": args.step_ms},
        }
        rule = {"done_interval": CHUNK, "min_steps": CHUNK + 1}
        return parse_settings(
            {
                "env": env,
                "critic": {"spec": url} | window,
                "rule": rule,
                "placement": {"envs_per_worker": envs_per_worker},
            }
        )

    def think() -> float:
        return max(0.0, rng.normal(args.policy_ms, args.spread * args.policy_ms)) / 1e3

    def report(name: str, run: Callable[[], float]) -> float:
        before = answered(url)
        seconds = run()
        print(
            f"{name:42} {(answered(url) - before) / steps:5.2f} requests and {1e3 * seconds / steps:5.0f} ms per step"
        )
        return seconds

    with critic_server() as url:
        print(
            f"{count} envs, {steps} chunks of {CHUNK}, {args.step_ms:g} ms per env step, one done check per chunk"
        )
        together, single = block(url, count), block(url, 1)
        base = report("verl-vla, each env for itself", lambda: alone(single, count, steps))
        ours = report("verl-vla", lambda: batched(together, count, steps))
        print(f"ratio {base / ours:.2f}")
        rng = np.random.default_rng(0)
        base = report(
            "verl 0.9.1, each env for itself",
            lambda: asyncio.run(paced([AsyncEnvs(single) for _ in range(count)], count, steps, think)),
        )
        rng = np.random.default_rng(0)
        together_s = report("the same, in lockstep", lambda: lockstep(together, count, steps, think))
        rng = np.random.default_rng(0)
        ours = report("verl 0.9.1", lambda: asyncio.run(paced([AsyncEnvs(together)], count, steps, think)))
        print(f"ratio {base / ours:.2f}, to lockstep {together_s / ours:.2f}")


if __name__ == "__main__":
    main()
