"""The privileged critics: exact answers from observed signals, and measured error rates."""

import math

import numpy as np
import pytest

from vlac_gym.critic import make_critic
from vlac_gym.critic.base import Critic, PrivilegedCritic
from vlac_gym.critic.oracle import NoisyOracleCritic, OracleCritic
from vlac_gym.envs.scripted import ScriptedEnv
from vlac_gym.errors import ConfigError, CriticResponseError
from vlac_gym.wrappers import VLACRewardWrapper

TASK = "stack the cubes"


def frame(number: int) -> np.ndarray:
    return np.full((2, 2, 3), number, np.uint8)


def observe(critic: OracleCritic, progresses: list[float]) -> list[np.ndarray]:
    critic.begin_episode()
    frames = [frame(i) for i in range(len(progresses))]
    for picture, progress in zip(frames, progresses):
        critic.observe(picture, {"success": progress == 1.0, "goal_progress": progress})
    return frames


def test_value_is_the_share_of_the_way_that_was_left_at_the_start():
    critic = OracleCritic()
    frames = observe(critic, [0.2, 0.6, 0.4, 0.1, 1.0])
    assert critic.value(frames, TASK).tolist() == pytest.approx([0.0, 0.5, 0.25, 0.0, 1.0])
    assert critic.success_prob(frames, [TASK] * 5).tolist() == [0.0, 0.0, 0.0, 0.0, 1.0]


def test_progress_of_pairs_accumulates_to_the_value():
    critic = OracleCritic()
    frames = observe(critic, [0.2, 0.6, 1.0, 0.5])
    progress = critic.progress(frames[:-1], frames[1:], [TASK] * 3)
    assert progress.tolist() == pytest.approx([0.5, 1.0, -0.5])


def test_unobserved_frame_is_an_error():
    critic = OracleCritic()
    observe(critic, [0.0])
    with pytest.raises(CriticResponseError, match="observe"):
        critic.success_prob([frame(9)], [TASK])


def test_the_last_episode_is_forgotten():
    critic = OracleCritic()
    frames = observe(critic, [0.0, 0.5])
    critic.begin_episode()
    with pytest.raises(CriticResponseError):
        critic.success_prob([frames[1]], [TASK])


def test_episodes_of_different_envs_do_not_mix():
    critic = OracleCritic()
    critic.observe(frame(1), {"success": True}, env_index=0)
    critic.observe(frame(2), {"success": False}, env_index=1)
    critic.begin_episode(env_index=1)
    assert critic.success_prob([frame(1)], [TASK]).tolist() == [1.0]


def test_env_without_success_is_refused():
    with pytest.raises(ConfigError, match=r"info\['success'\]"):
        OracleCritic().observe(frame(0), {"task": TASK})


def test_oracles_are_critics_and_say_that_they_are_privileged():
    for spec in ("oracle", "noisy_oracle:tpr=0.8,fpr=0.05,delay=2,autocorrelation=0.5,seed=3"):
        critic = make_critic(spec)
        assert isinstance(critic, Critic)
        assert isinstance(critic, PrivilegedCritic)
        assert critic.describe().is_privileged is True


@pytest.mark.parametrize("autocorrelation", [0.0, 0.6])
def test_measured_rates_are_the_chosen_ones(autocorrelation):
    checks = 2000
    critic = NoisyOracleCritic(tpr=0.8, fpr=0.05, autocorrelation=autocorrelation, seed=7)
    answers = {True: [], False: []}
    for episode in range(2 * checks // 10):
        critic.begin_episode()
        success = episode % 2 == 0
        for _ in range(10):
            critic.observe(frame(0), {"success": success})
            answers[success].append(float(critic.success_prob([frame(0)], [TASK])[0]))
    # Neighbouring checks of an episode agree more often, so that the standard error grows by at most
    # sqrt((1 + r) / (1 - r)) for latent correlation r.
    inflation = math.sqrt((1 + autocorrelation) / (1 - autocorrelation))
    for success, rate in ((True, 0.8), (False, 0.05)):
        assert len(answers[success]) == checks
        error = math.sqrt(rate * (1 - rate) / checks) * inflation
        assert abs(np.mean(answers[success]) - rate) < 3 * error


def test_autocorrelation_makes_neighbouring_answers_agree():
    def agreement(autocorrelation: float) -> float:
        critic = NoisyOracleCritic(tpr=1.0, fpr=0.5, autocorrelation=autocorrelation)
        critic.begin_episode()
        answers = []
        for _ in range(2000):
            critic.observe(frame(0), {"success": False})
            answers.append(float(critic.success_prob([frame(0)], [TASK])[0]))
        return float(np.mean(np.equal(answers[1:], answers[:-1])))

    # For a latent correlation r and rate 1/2: P(agree) = 1/2 + arcsin(r) / pi.
    assert agreement(0.0) == pytest.approx(0.5, abs=0.04)
    assert agreement(0.9) == pytest.approx(0.5 + math.asin(0.9) / math.pi, abs=0.04)


def test_delay_is_in_observed_frames():
    critic = NoisyOracleCritic(delay=2)
    env = VLACRewardWrapper(ScriptedEnv(success_steps=range(3, 20)), critic)
    env.reset(seed=0)
    probs = []
    for _ in range(5):
        *_, info = env.step(np.zeros(7, np.float32))
        probs.append(info["critic"]["success_prob"])
    assert probs == [0.0, 0.0, 0.0, 0.0, 1.0]


def test_same_seed_gives_the_same_noise_and_another_seed_another():
    def draws(seed: int) -> list[float]:
        critic = NoisyOracleCritic(fpr=0.5, seed=seed)
        critic.begin_episode()
        answers = []
        for i in range(40):
            critic.observe(frame(i), {"success": False})
            answers.append(float(critic.success_prob([frame(i)], [TASK])[0]))
        return answers

    assert draws(1) == draws(1)
    assert draws(1) != draws(2)


def test_asking_twice_about_a_frame_gives_the_same_answer():
    critic = NoisyOracleCritic(fpr=0.5)
    critic.observe(frame(0), {"success": False})
    first = critic.success_prob([frame(0)] * 5, [TASK] * 5)
    assert len(set(first.tolist())) == 1


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("oracle:x", "takes no argument"),
        ("noisy_oracle:tpr=2", r"tpr in \[0, 1\]"),
        ("noisy_oracle:tpr", "key=value"),
        ("noisy_oracle:fprate=0.1", "Did you mean 'fpr'"),
        ("noisy_oracle:delay=1.5", "delay as int"),
        ("noisy_oracle:autocorrelation=1", r"autocorrelation in \[0, 1\)"),
        ("oracel", "Did you mean 'oracle'"),
        ("", "critic spec"),
    ],
)
def test_bad_specs_say_what_is_wrong(spec, message):
    with pytest.raises(ConfigError, match=message):
        make_critic(spec)
