"""A critic's answers are kept on disk and given again without it."""

import json
from functools import partial

import numpy as np
import pytest
from vector_envs import LookingCritic, ShadedEnv
from wrapped_vector_envs import actions, build

from vlac_gym.critic import make_critic
from vlac_gym.critic.base import frame_digest
from vlac_gym.critic.oracle import NoisyOracleCritic, OracleCritic
from vlac_gym.critic.random import RandomCritic
from vlac_gym.critic.recorded import RecordedCritic, ReplayedCritic
from vlac_gym.critic.wrapper import CriticWrapper, adapted
from vlac_gym.errors import ConfigError, CriticResponseError
from vlac_gym.rule.calibration import Calibration
from vlac_gym.wrappers import VLACRewardWrapper

FRAMES = [np.full((4, 4, 3), level, np.uint8) for level in (0, 90, 200)]


def play_single(critic):
    env = VLACRewardWrapper(ShadedEnv(max_episode_steps=6), critic, value_stride=2, preset="dense")
    env.reset(seed=0)
    told = []
    for _ in range(6):
        _, reward, terminated, truncated, info = env.step(env.action_space.sample())
        said = {k: v for k, v in info["critic"].items() if not k.endswith("_ms")}
        told.append((reward, terminated, truncated, said))
        if terminated or truncated:
            break
    return told


def play_vector(critic):
    env = build(
        [partial(ShadedEnv, shade=i, success_steps=[2 + i]) for i in range(2)], critic, value_stride=2
    )
    env.reset(seed=0)
    rewards = [env.step(actions(2))[1].tolist() for _ in range(6)]
    env.close()
    return rewards


@pytest.mark.parametrize("play", [play_single, play_vector])
@pytest.mark.parametrize(
    "make", [lambda: RandomCritic(done_rate=0.2), OracleCritic, lambda: NoisyOracleCritic(0.7, 0.2, seed=3)]
)
def test_a_replayed_episode_pays_and_tells_what_the_recorded_one_did(tmp_path, play, make):
    path = tmp_path / "critic.jsonl"
    recorded = play(RecordedCritic(make(), path))
    replay = make_critic(f"recorded:{path}")
    assert play(replay) == recorded
    assert replay.describe().fingerprint == make().describe().fingerprint
    assert replay.describe().is_privileged == make().describe().is_privileged


def test_a_question_that_is_not_in_the_record_is_named_with_the_file(tmp_path):
    path = tmp_path / "critic.jsonl"
    RecordedCritic(RandomCritic(), path).success_prob(FRAMES[:1], ["stack"])
    with pytest.raises(CriticResponseError) as error:
        ReplayedCritic(path).success_prob(FRAMES[1:2], ["stack"])
    for part in ("success_prob", "'stack'", frame_digest(FRAMES[1]).hex(), str(path)):
        assert part in str(error.value)


def test_a_record_cut_in_a_line_keeps_what_came_before_and_goes_on(tmp_path):
    path = tmp_path / "critic.jsonl"
    critic = RandomCritic(done_rate=0.5)
    RecordedCritic(critic, path).success_prob(FRAMES[:2], ["stack"] * 2)
    path.write_bytes(path.read_bytes()[:-5])
    assert ReplayedCritic(path).success_prob(FRAMES[:1], ["stack"]) == critic.success_prob(
        FRAMES[:1], ["stack"]
    )
    RecordedCritic(critic, path).success_prob(FRAMES[1:], ["stack"] * 2)
    assert len(path.read_text().splitlines()) == 1 + 3
    expected = critic.success_prob(FRAMES, ["stack"] * 3)
    assert ReplayedCritic(path).success_prob(FRAMES, ["stack"] * 3).tolist() == expected.tolist()


def test_another_critics_record_is_not_continued(tmp_path):
    path = tmp_path / "critic.jsonl"
    RecordedCritic(RandomCritic(seed=0), path).success_prob(FRAMES, ["stack"] * 3)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="Record to another file"):
        RecordedCritic(RandomCritic(seed=1), path).success_prob(FRAMES, ["stack"] * 3)
    assert path.read_bytes() == before


def test_frames_are_kept_once_and_only_if_asked(tmp_path):
    RecordedCritic(RandomCritic(), tmp_path / "a.jsonl").success_prob(FRAMES, ["stack"] * 3)
    assert [file.name for file in tmp_path.iterdir()] == ["a.jsonl"]
    critic = RecordedCritic(RandomCritic(), tmp_path / "b.jsonl", frames=tmp_path / "frames")
    critic.value([*FRAMES, FRAMES[0]], "stack")
    assert len(list((tmp_path / "frames").iterdir())) == 3
    kept = np.load(tmp_path / "frames" / f"{frame_digest(FRAMES[1]).hex()}.npy")
    assert np.array_equal(kept, FRAMES[1])


@pytest.mark.parametrize("text", ["", "{}\n", "no json\n", json.dumps(["a"]) + "\n"])
def test_what_is_no_record_is_refused(tmp_path, text):
    path = tmp_path / "critic.jsonl"
    path.write_text(text)
    with pytest.raises(ConfigError, match="critic's record"):
        make_critic(f"recorded:{path}")
    with pytest.raises(ConfigError, match="critic's record"):
        make_critic(f"recorded:{tmp_path / 'none.jsonl'}")


def test_a_critic_that_only_answers_is_completed_once_with_neutral_defaults():
    critic = adapted(LookingCritic())
    critic.warm_up()
    assert critic.gpu_memory_bytes() is None
    assert not critic.can_sleep
    assert adapted(critic) is critic
    for switch in (critic.sleep, critic.wake):
        with pytest.raises(ConfigError, match="'looking'"):
            switch()


def test_a_wrapper_forwards_what_the_inner_critic_can(tmp_path):
    class Capable(RandomCritic):
        is_remote = True
        takes_concurrent_calls = True
        can_sleep = True
        told: list[str] = []

        def sleep(self):
            self.told.append("sleep")

        def wake(self):
            self.told.append("wake")

        def warm_up(self):
            self.told.append("warm_up")

        def close(self):
            self.told.append("close")

        def gpu_memory_bytes(self):
            return 7

    inner = Capable()
    critic = CriticWrapper(CriticWrapper(inner))
    critic.warm_up()
    critic.sleep()
    critic.wake()
    critic.close()
    assert inner.told == ["warm_up", "sleep", "wake", "close"]
    assert (critic.gpu_memory_bytes(), critic.can_sleep, critic.is_remote) == (7, True, True)
    assert critic.takes_concurrent_calls
    assert not CriticWrapper(RandomCritic()).takes_concurrent_calls
    assert not RecordedCritic(inner, tmp_path / "critic.jsonl").takes_concurrent_calls
    assert critic.unwrapped is inner


def test_a_calibration_of_another_critic_refuses_the_record(tmp_path):
    path, calibration = tmp_path / "critic.jsonl", tmp_path / "calibration.json"
    RecordedCritic(RandomCritic(seed=0), path).success_prob(FRAMES, ["stack"] * 3)
    other = RandomCritic(seed=1).describe().fingerprint
    measured = Calibration(critic="other", critic_fingerprint=other, done_threshold=0.9)
    calibration.write_text(json.dumps(measured.as_json()))
    env = VLACRewardWrapper(ShadedEnv(), make_critic(f"recorded:{path}"), calibration=str(calibration))
    with pytest.raises(ConfigError, match="calibration was measured on another critic"):
        env.reset(seed=0)
