"""What an env shows while it plays a task, as digests: `Playing`; a script of one env alone in a new process.

With ``--no-settling`` as the last argument, a start that would have to be settled is an error.
"""

import hashlib
import json
import sys

import numpy as np

from vlac_gym.envs.libero import LiberoEnv
from vlac_gym.envs.libero.simulator import LiberoSimulator

NUM_STEPS = 4
IMAGE_SIZE = 64


class Playing:
    """An env that plays fixed actions, and the digests of what it has shown so far in the episode."""

    def __init__(self, suite, task_id, **options):
        self.suite, self.task_id = suite, task_id
        self.env = LiberoEnv(suite, task_id, image_size=IMAGE_SIZE, settle_steps=2, **options)

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


def play(suite, task_id, init_state_ids, **options):
    """{episode: digests after reset and after each step}."""
    playing, shown = Playing(suite, task_id, **options), {}
    for init_state_id in init_state_ids:
        playing.reset(init_state_id)
        for _ in range(NUM_STEPS):
            playing.step()
        shown[playing.episode] = playing.shown
    playing.env.close()
    return shown


if __name__ == "__main__":
    if sys.argv[-1] == "--no-settling":
        sys.argv.pop()
        LiberoSimulator._settle = None
    print(json.dumps(play(sys.argv[1], int(sys.argv[2]), [int(number) for number in sys.argv[3:]])))
