"""The env's side of gpu_expert.py: the package's expert, asked for actions in states that another simulator reached.

gpu_expert.py starts it where vlac-gym[libero] is installed. It reads N states (qpos and qvel, float64) from stdin,
puts one after another into the task's simulator, writes N actions (float64, 7 each) to stdout, and so on.
"""

import argparse
import os
import sys
from typing import Any

import numpy as np

from vlac_gym.envs.libero import LiberoEnv
from vlac_gym.errors import ConfigError
from vlac_gym.policies import Policy, make_policy

STANDING_STILL = np.zeros(7)


def main() -> None:
    """Answers until stdin ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", required=True)
    parser.add_argument("--task", type=int, required=True)
    parser.add_argument(
        "--init-states", type=int, nargs="+", required=True, help="one per state of a message"
    )
    args = parser.parse_args()
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what LIBERO and robosuite print is no part of a reply
    env = LiberoEnv(args.suite, args.task, cameras=("agentview",), image_size=16)
    env.reset(options={"init_state_id": args.init_states[0]})
    model = env._simulator._model  # a benchmark may look inside
    shape = (len(args.init_states), model.nq + model.nv)
    experts = [Expert(env, init_state_id) for init_state_id in args.init_states]
    while message := sys.stdin.buffer.read(8 * shape[0] * shape[1]):
        states = np.frombuffer(message).reshape(shape)
        actions = [expert.act(state) for expert, state in zip(experts, states, strict=True)]
        replies.write(np.array(actions, np.float64).tobytes())
        replies.flush()


class Expert:
    """The expert in one world, which it sees as a state of `env`; the first state asked about begins its episode."""

    def __init__(self, env: LiberoEnv, init_state_id: int) -> None:
        self._env, self._init_state_id, self._steps = env, init_state_id, 0
        self._policy: Policy | None = make_policy("expert")

    def act(self, state: np.ndarray) -> np.ndarray:
        """float64 (7,); without motion once the expert has no plan, or the state is not finite."""
        if self._policy is None or not np.isfinite(state).all():
            return STANDING_STILL
        put_state(self._env, state, self._steps)
        try:
            if self._steps == 0:
                self._policy.reset(self._env, self._init_state_id)
            action = self._policy.act(None, self._env.current_info())
        except ConfigError as error:
            print(f"The expert gives up initial state {self._init_state_id}: {error}", file=sys.stderr)
            self._policy = None
            return STANDING_STILL
        self._steps += 1
        return np.clip(action, -1.0, 1.0)


def put_state(env: LiberoEnv, state: np.ndarray, elapsed_steps: int) -> None:
    """Makes qpos and qvel, one after the other in `state`, the env's present state."""
    simulator: Any = env._simulator
    model, data = simulator._model, simulator._data
    data.qpos[:], data.qvel[:] = state[: model.nq], state[model.nq :]
    simulator._mujoco.mj_forward(model, data)
    env._elapsed_steps = elapsed_steps


if __name__ == "__main__":
    main()
