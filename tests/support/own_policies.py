"""Policies and critics of a user's own, for specs such as ``own_policies:push?x=0.5``."""

import numpy as np

from vlac_gym.critic.scripted import ScriptedCritic
from vlac_gym.policies.simple import ZeroPolicy

NUMBER = 3


def push(x: float = 0.25, gripper=-1.0, label="none"):
    """A function of observation and info; `gripper` and `label` have no annotation."""
    assert isinstance(gripper, float)
    assert isinstance(label, str)
    return lambda observation, info: [x, 0, 0, 0, 0, 0, gripper]


def wrong_shape():
    return lambda observation, info: [0.0] * 6


def large():
    raise AssertionError("A large model was loaded.")


class Policies:
    @staticmethod
    def still():
        return ZeroPolicy()


class ChunkModel:
    """A model of preset openvla_oft: 8 actions, gripper 1 opens."""

    def __init__(self, x: float) -> None:
        self.x = x
        self.calls = 0

    def infer(self, element):
        assert set(element) == {"full_image", "wrist_image", "state", "instruction"}
        self.calls += 1
        return {"actions": np.tile([self.x, 0, 0, 0, 0, 0, 1.0], (8, 1))}


class BatchModel(ChunkModel):
    """Takes all inputs at once."""

    batches = []

    def infer_batch(self, inputs):
        self.batches.append(len(inputs))
        return [self.infer(element)["actions"] for element in inputs]


def number():
    return 3


def critic(answer: float):
    return ScriptedCritic([answer], repeat=True)
