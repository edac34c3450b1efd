"""What `env_speed.py` measures, one part per process: `PARTS`, `Stopwatch`. Not meant to be run by hand.

Some parts are run by an interpreter of an environment with other packages (`env_speed.OTHER_PYTHONS`), so this module
itself imports numpy alone.
"""

import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

CHUNK = 8
SEEN_RESETS = 20


class Stopwatch:
    """Seconds on the clock, and of processor time in this process, its threads and the given workers."""

    def __init__(self, pids: Sequence[int] = ()) -> None:
        self._pids = pids
        self._clock, self._cpu = time.perf_counter(), self._cpu_s()

    def read(self) -> dict[str, float]:
        return {"clock_s": time.perf_counter() - self._clock, "cpu_s": self._cpu_s() - self._cpu}

    def _cpu_s(self) -> float:
        return time.process_time() + sum(_cpu_s_of(pid) for pid in self._pids)


def _cpu_s_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mib(pid: int) -> float:
    """Proportional set size: pages that processes share are counted once."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return int(next(x for x in lines if x.startswith("Pss:")).split()[1]) / 1024


def timed(work: Callable[[], object], count: int = 1, pids: Sequence[int] = ()) -> dict[str, float]:
    """Seconds per unit of `work`, which does `count` of them."""
    watch = Stopwatch(pids)
    work()
    return {name: seconds / count for name, seconds in watch.read().items()}


def actions_of(args: Any, num_envs: int | None = None) -> np.ndarray:
    shape = (args.steps, 7) if num_envs is None else (args.steps, num_envs, 7)
    return np.random.default_rng(0).uniform(-1, 1, shape)


def one_env(args: Any) -> dict[str, Any]:
    from vlac_gym.envs.libero import LiberoEnv

    options = {"cameras": ("agentview",), "image_size": args.image_size}
    env, second = LiberoEnv(args.suite, **options), LiberoEnv(args.suite, **options)
    both = LiberoEnv(args.suite, image_size=args.image_size)
    results: dict[str, Any] = {
        "first env, to its first observation": timed(lambda: env.reset(options={"init_state_id": 0})),
        "second env of the task, likewise": timed(lambda: second.reset(options={"init_state_id": 0})),
        "reset to a new state": timed(
            lambda: [env.reset(options={"init_state_id": i}) for i in (1, 2, 3)], 3
        ),
        "reset to a state seen before": timed(
            lambda: [env.reset(options={"init_state_id": i % 4}) for i in range(SEEN_RESETS)], SEEN_RESETS
        ),
    }
    both.reset(options={"init_state_id": 0})
    actions = actions_of(args)

    def play(name: str, of: Any, work: Callable[[Any], object]) -> None:
        of.reset(options={"init_state_id": 0})
        results[name] = timed(lambda: work(of), len(actions))

    play("step, chunk 1, two cameras", both, lambda e: [e.step(a) for a in actions])
    play("step, chunk 1, one camera", env, lambda e: [e.step(a) for a in actions])
    play(f"step, chunk {CHUNK}, one camera", env, lambda e: _in_chunks(e, actions))
    once = LiberoEnv(args.suite, **options, repeat_solves=False)
    play("step, nothing rendered", env, lambda e: [e.step_unrendered(a) for a in actions])
    name = "step, nothing rendered, repeat_solves=False"
    play(name, once, lambda e: [e.step_unrendered(a) for a in actions])
    results["one picture"] = timed(lambda: _render_again(env), 10)
    for each in (env, second, both, once):
        each.close()
    return results


def _in_chunks(env: Any, actions: np.ndarray) -> None:
    for begin in range(0, len(actions), CHUNK):
        for action in actions[begin : begin + CHUNK]:
            env.step_unrendered(action)
        env.observe()
        env.current_info()


def _render_again(env: Any) -> None:
    for _ in range(10):
        env._frames = {}  # an env keeps the picture of a state; this measures the renderer
        env.render_camera("agentview")


def _libero_env(args: Any) -> Any:
    from vlac_gym.envs.gl import configure_gl
    from vlac_gym.envs.libero.tasks import get_task

    configure_gl()
    from libero.libero.envs import OffScreenRenderEnv

    file = str(get_task(args.suite, 0).bddl_file)
    return OffScreenRenderEnv(
        bddl_file_name=file, camera_heights=args.image_size, camera_widths=args.image_size
    )


def libero(args: Any) -> dict[str, Any]:
    """LIBERO's env as its evaluation uses it: two cameras at every step, `reset` compiles the model again."""
    from vlac_gym.envs.libero.tasks import get_task

    states = get_task(args.suite, 0).load_init_states()
    built: list[Any] = []

    def build() -> None:
        built.append(_libero_env(args))
        built[0].reset()

    results: dict[str, Any] = {"first env, to its first observation": timed(build)}
    env = built[0]
    results["reset"] = timed(lambda: [env.reset() for _ in range(2)], 2)
    env.set_init_state(states[0])
    actions = actions_of(args)
    results["step"] = timed(lambda: [env.step(a) for a in actions], len(actions))
    env.close()
    return results


def lerobot(args: Any) -> dict[str, Any]:
    """lerobot's env with its defaults: both cameras, 10 settling steps at each reset."""
    from vlac_gym.envs.gl import configure_gl
    from vlac_gym.envs.libero.install import find_libero

    configure_gl()
    find_libero()
    from lerobot.envs.libero import LiberoEnv
    from libero.libero import benchmark

    suite = benchmark.get_benchmark_dict()[args.suite]()
    built: list[Any] = []

    def build() -> None:
        built.append(
            LiberoEnv(
                suite, 0, args.suite, obs_type="pixels_agent_pos", init_states=False,
                observation_width=args.image_size, observation_height=args.image_size,
            )
        )  # fmt: skip
        built[0].reset(seed=0)

    results: dict[str, Any] = {"first env, to its first observation": timed(build)}
    env = built[0]
    results["reset"] = timed(lambda: [env.reset(seed=0) for _ in range(2)], 2)
    actions = actions_of(args)
    results["step"] = timed(lambda: [env.step(a) for a in actions], len(actions))
    env.close()
    return results


def measured_workers(
    args: Any,
    pids: Sequence[int],
    reset: Callable[[], object],
    warm_up: Callable[[], object],
    play: Callable[[], object],
) -> dict[str, Any]:
    """What a vector env's processes take: their first reset, `play`'s `args.steps` steps of each env, and memory."""
    results: dict[str, Any] = {"start and first reset of all": timed(reset, pids=pids)}
    warm_up()
    results["step of one env"] = timed(play, args.steps * args.num_workers, pids)
    results["memory of a worker, MiB"] = float(np.median([memory_mib(pid) for pid in pids]))
    return results


def workers(args: Any) -> dict[str, Any]:
    """`make_vec` in worker processes, chunks, one camera."""
    import vlac_gym
    from vlac_gym.wrappers.vector import ActionChunk

    env = ActionChunk(
        vlac_gym.make_vec(
            args.suite, 0, args.num_workers, cameras=("agentview",), image_size=args.image_size
        ),
        CHUNK,
    )
    actions = actions_of(args, args.num_workers).swapaxes(0, 1).astype(np.float32)

    def play() -> None:
        for begin in range(0, args.steps, CHUNK):
            env.step(actions[:, begin : begin + CHUNK])

    results = measured_workers(
        args,
        env.unwrapped.worker_pids,
        reset=lambda: env.reset(seed=0),
        warm_up=lambda: env.step(actions[:, :CHUNK]),
        play=play,
    )
    env.close()
    return results


def libero_workers(args: Any) -> dict[str, Any]:
    """LIBERO's `SubprocVectorEnv` as its evaluation uses it."""
    from vlac_gym.envs.gl import configure_gl

    configure_gl()
    from libero.libero.envs import SubprocVectorEnv

    from vlac_gym.envs.libero.tasks import get_task

    states = get_task(args.suite, 0).load_init_states()
    multiprocessing.set_start_method("spawn", force=True)
    env = SubprocVectorEnv([lambda: _libero_env(args)] * args.num_workers)
    actions = actions_of(args, args.num_workers)

    def warm_up() -> None:
        env.set_init_state(states[: args.num_workers])
        env.step(actions[0])

    pids = [worker.process.pid for worker in env.workers]
    results = measured_workers(args, pids, env.reset, warm_up, play=lambda: [env.step(a) for a in actions])
    env.close()
    return results


RLINF_CONFIG = {
    "auto_reset": False, "ignore_terminations": False, "max_episode_steps": 240, "use_rel_reward": True,
    "use_step_penalty": False, "reward_coef": 1.0, "reset_gripper_open": True, "is_eval": False, "seed": 0,
    "group_size": 1, "use_fixed_reset_state_ids": True, "use_ordered_reset_state_ids": False,
    "video_cfg": {"save_video": False},
}  # fmt: skip
"""RLinf's examples/embodiment/config/env/libero_spatial.yaml, without videos."""


def rlinf_workers(args: Any) -> dict[str, Any]:
    """RLinf's `LiberoEnv` as its rollout uses it, by `chunk_step` of `args.chunk` actions; without vlac_gym."""
    from omegaconf import OmegaConf
    from rlinf.envs.libero.libero_env import LiberoEnv

    size = {"camera_heights": args.image_size, "camera_widths": args.image_size}
    task = {"task_suite_name": args.suite, "task_id_filter": [0], "init_params": size}
    env = LiberoEnv(OmegaConf.create(RLINF_CONFIG | task), args.num_workers, 0, 1, None)
    actions = actions_of(args, args.num_workers).swapaxes(0, 1)
    chunks = [actions[:, begin : begin + args.chunk] for begin in range(0, args.steps, args.chunk)]
    results = measured_workers(
        args,
        [worker.process.pid for worker in env.env.workers],
        reset=env.reset,
        warm_up=lambda: env.chunk_step(chunks[0]),
        play=lambda: [env.chunk_step(chunk) for chunk in chunks],
    )
    env.env.close()
    return results


def lerobot_workers(args: Any) -> dict[str, Any]:
    """lerobot's envs as its evaluation makes them with `use_async_envs`, but in processes that are not forked.

    It makes an env before it forks, and with Mesa's EGL the forked processes then didn't answer. Without vlac_gym.
    """
    from gymnasium.vector import AsyncVectorEnv
    from lerobot.envs.libero import create_libero_envs

    options = {
        "task_ids": [0], "obs_type": "pixels_agent_pos",
        "observation_width": args.image_size, "observation_height": args.image_size,
    }  # fmt: skip
    spawned = partial(AsyncVectorEnv, context="spawn")
    made = create_libero_envs(args.suite, args.num_workers, options, init_states=False, env_cls=spawned)
    env = made[args.suite][0]
    actions = actions_of(args, args.num_workers).astype(np.float32)
    results = measured_workers(
        args,
        [process.pid for process in env.processes],
        reset=lambda: env.reset(seed=0),
        warm_up=lambda: env.step(actions[0]),
        play=lambda: [env.step(a) for a in actions],
    )
    env.close()
    return results


PARTS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "one_env": one_env,
    "libero": libero,
    "lerobot": lerobot,
    "workers": workers,
    "libero_workers": libero_workers,
    "rlinf_workers": rlinf_workers,
    "lerobot_workers": lerobot_workers,
}
