"""Warming up asks the engine for done checks and pairs of the given tasks, and changes no answer."""

import numpy as np

from vlac_gym.critic.engines.scripted import ScriptedEngine
from vlac_gym.critic.vlac.critic import VLACConfig, VLACCritic
from vlac_gym.critic.vlac.prompts import done_prompt, pair_prompt


class WarmingEngine(ScriptedEngine):
    warmed: tuple = ()

    def warm_up(self, examples):
        self.warmed = tuple(example.prompt for example in examples)


def test_engine_warms_up_with_done_checks_and_pairs_of_the_tasks():
    engine = WarmingEngine(["1"])
    critic = VLACCritic(engine)
    critic.warm_up(["open the drawer"])
    assert engine.warmed == (done_prompt("open the drawer"), pair_prompt("open the drawer"))
    assert critic.success_prob([np.zeros((4, 4, 3), np.uint8)], ["open the drawer"]).tolist() == [1.0]


def test_no_thought_is_spent_on_blank_pictures():
    engine = WarmingEngine(["1"])
    VLACCritic(engine, VLACConfig(thinking=True)).warm_up(["open the drawer"])
    assert engine.warmed == (done_prompt("open the drawer"),)


def test_engine_without_warm_up_is_left_alone():
    engine = ScriptedEngine(["1"])
    VLACCritic(engine).warm_up()
    assert VLACCritic(engine).success_prob([np.zeros((4, 4, 3), np.uint8)], ["open it"]).tolist() == [1.0]
