"""The privileged critics: exact answers from observed signals, and measured error rates."""

import math

import numpy as np
import pytest

from vlac_gym.critic import make_critic
from vlac_gym.critic.base import Critic, frame_digest
from vlac_gym.critic.oracle import NoisyOracleCritic, OracleCritic
from vlac_gym.critic.signals import EpisodeSignals, signals_of
from vlac_gym.envs.scripted import ScriptedEnv
from vlac_gym.errors import ConfigError
from vlac_gym.wrappers import VLACRewardWrapper

TASK = "stack the cubes"


def frame(number: int) -> np.ndarray:
    return np.full((2, 2, 3), number, np.uint8)


def episode(progresses: list[float]) -> list[np.ndarray]:
    """One frame per `goal_progress`; all look the same."""
    signals = EpisodeSignals()
    return [
        signals.attach(frame(0), {"success": progress == 1.0, "goal_progress": progress})
        for progress in progresses
    ]


def failures(count: int, env_index: int = 0, number: int = 0) -> list[np.ndarray]:
    signals = EpisodeSignals(env_index, number)
    return [signals.attach(frame(0), {"success": False}) for _ in range(count)]


def test_value_is_the_share_of_the_way_that_was_left_at_the_start():
    critic = OracleCritic()
    frames = episode([0.2, 0.6, 0.4, 0.1, 1.0])
    assert critic.value(frames, TASK).tolist() == pytest.approx([0.0, 0.5, 0.25, 0.0, 1.0])
    assert critic.success_prob(frames, [TASK] * 5).tolist() == [0.0, 0.0, 0.0, 0.0, 1.0]


def test_progress_of_pairs_accumulates_to_the_value():
    critic = OracleCritic()
    frames = episode([0.2, 0.6, 1.0, 0.5])
    progress = critic.progress(frames[:-1], frames[1:], [TASK] * 3)
    assert progress.tolist() == pytest.approx([0.5, 1.0, -0.5])


def test_picture_alone_is_refused_and_the_message_says_what_a_wrapping_critic_must_do():
    for critic in (OracleCritic(), NoisyOracleCritic()):
        with pytest.raises(
            ConfigError, match=r"privileged critic '\w+' can't judge\. .*is_privileged=True in describe"
        ):
            critic.success_prob([frame(9)], [TASK])
        with pytest.raises(ConfigError, match="with the simulator's signals"):
            critic.value([frame(9)], TASK)


def test_copies_carry_the_signals_and_the_picture_stays_as_it_was():
    picture = frame(3)
    seen = EpisodeSignals().attach(picture, {"success": True})
    assert type(picture) is np.ndarray
    assert np.shares_memory(seen, picture)
    for copy in (seen, seen.copy(), np.array(seen, subok=True)):
        assert OracleCritic().success_prob([copy], [TASK]).tolist() == [1.0]
        np.testing.assert_array_equal(copy, picture)


def test_a_digest_tells_moments_apart_that_look_the_same():
    frames = [*failures(2), *failures(1, env_index=1), *failures(1, number=1)]
    assert len({frame_digest(seen) for seen in frames}) == 4
    assert frame_digest(frames[0].copy()) == frame_digest(frames[0])


def test_gymnasium_robotics_name_for_success_counts():
    seen = EpisodeSignals().attach(frame(0), {"is_success": 1.0})
    assert (signals_of(seen, "oracle").success, signals_of(seen, "oracle").goal_progress) == (True, 1.0)


def test_env_without_success_is_refused():
    with pytest.raises(ConfigError, match=r"info\['success'\]"):
        EpisodeSignals().attach(frame(0), {"task": TASK})


def test_oracles_are_critics_and_say_that_they_are_privileged():
    for spec in ("oracle", "noisy_oracle:tpr=0.8,fpr=0.05,delay=2,autocorrelation=0.5,seed=3"):
        critic = make_critic(spec)
        assert isinstance(critic, Critic)
        assert critic.describe().is_privileged is True


@pytest.mark.parametrize("autocorrelation", [0.0, 0.6])
def test_measured_rates_are_the_chosen_ones(autocorrelation):
    checks = 2000
    critic = NoisyOracleCritic(tpr=0.8, fpr=0.05, autocorrelation=autocorrelation, seed=7)
    answers = {True: [], False: []}
    for number in range(2 * checks // 10):
        signals = EpisodeSignals(episode=number)
        success = number % 2 == 0
        frames = [signals.attach(frame(0), {"success": success}) for _ in range(10)]
        answers[success] += critic.success_prob(frames, [TASK] * 10).tolist()
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
        answers = critic.success_prob(failures(2000), [TASK] * 2000)
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
    def draws(seed: int, env_index: int = 0, number: int = 0) -> list[float]:
        critic = NoisyOracleCritic(fpr=0.5, seed=seed)
        return critic.success_prob(failures(40, env_index, number), [TASK] * 40).tolist()

    assert draws(1) == draws(1)
    assert draws(1) != draws(2)
    assert draws(1) != draws(1, env_index=1)
    assert draws(1) != draws(1, number=1)


def test_asking_again_in_any_order_gives_the_same_answers():
    critic = NoisyOracleCritic(fpr=0.5)
    frames = failures(20)
    first = critic.success_prob(frames, [TASK] * 20).tolist()
    assert NoisyOracleCritic(fpr=0.5).success_prob(frames[::-1], [TASK] * 20).tolist() == first[::-1]
    assert critic.success_prob([frames[7]] * 5, [TASK] * 5).tolist() == [first[7]] * 5


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
