"""What an env shows while it plays a task, as digests: `Playing`; a script of one env alone in a new process.

With ``--no-settling``, a start that would have to be settled is an error; with ``--starts-alone``, starts are settled
for as long as by default, and no actions follow.
"""

import argparse
import hashlib
import json

import numpy as np

from vlac_gym.envs.libero import LiberoEnv
from vlac_gym.envs.libero.simulator import LiberoSimulator

NUM_STEPS = 4
IMAGE_SIZE = 64


class Playing:
    """An env that plays fixed actions, and the digests of what it has shown so far in the episode."""

    def __init__(self, suite, task_id, settle_steps=2, **options):
        self.suite, self.task_id = suite, task_id
        self.env = LiberoEnv(suite, task_id, image_size=IMAGE_SIZE, settle_steps=settle_steps, **options)

    def reset(self, init_state_id, task_id=None):
        self.task_id = self.task_id if task_id is None else task_id
        seed = [ord(letter) for letter in self.suite] + [self.task_id, init_state_id]
        self.actions = np.random.default_rng(seed).uniform(-1, 1, (NUM_STEPS, 7))
        self.episode = f"{self.suite} {self.task_id} {init_state_id}"
        self.env.reset(options={"task_id": self.task_id, "init_state_id": init_state_id})
        self.shown = [self.look()]

    def step(self):
        if len(self.shown) <= NUM_STEPS:
            self.env.step_unrendered(self.actions[len(self.shown) - 1])
            self.shown.append(self.look())

    def look(self):
        observation = self.env.observe()
        whole = hashlib.sha256(self.env.physics_state().tobytes())
        for key in sorted(observation):
            whole.update(observation[key].tobytes())
        whole.update(str(self.env.current_info()).encode())
        return whole.hexdigest()


def play(suite, task_id, init_state_ids, num_steps=NUM_STEPS, **options):
    """{episode: digests after reset and after each step}."""
    playing, shown = Playing(suite, task_id, **options), {}
    for init_state_id in init_state_ids:
        playing.reset(init_state_id)
        for _ in range(num_steps):
            playing.step()
        shown[playing.episode] = playing.shown
    playing.env.close()
    return shown


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("suite")
    parser.add_argument("task_id", type=int)
    parser.add_argument("init_state_ids", type=int, nargs="+")
    parser.add_argument("--no-settling", action="store_true")
    parser.add_argument("--starts-alone", action="store_true")
    args = parser.parse_args()
    if args.no_settling:
        LiberoSimulator._settle = None
    how = {"num_steps": 0, "settle_steps": 10} if args.starts_alone else {}
    print(json.dumps(play(args.suite, args.task_id, args.init_state_ids, **how)))
