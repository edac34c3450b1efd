"""What a policy for a failing critic may say."""

import pytest

from vlac_gym.critic import CriticFailurePolicy
from vlac_gym.critic.failure_policy import failure_policy
from vlac_gym.critic.scripted import ScriptedCritic
from vlac_gym.errors import ConfigError


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"then": "ignore"}, "Unknown on_critic_error 'ignore'"),
        ({"retries": -1}, "retries as an int >= 0, got -1"),
        ({"retries": True}, "retries as an int >= 0"),
        ({"fallbacks": "http://two:8400"}, "as a sequence of critics or specs"),
        ({"fallbacks": ["htp://two"]}, "Unknown critic 'htp'"),
        ({"fallbacks": ["http://two:8400?max_attempts=0"]}, "max_attempts above 0"),
        ({"allow_other_critic": 1}, "allow_other_critic as True or False"),
        ({"failback_s": 0}, "failback_s above 0, got 0"),
        ({"max_consecutive_failed_episodes": 0}, "max_consecutive_failed_episodes as an int >= 1"),
        ({"max_failed_share": 1.0}, r"max_failed_share in \[0, 1\) or None, got 1\.0"),
        ({"window_episodes": 0}, "window_episodes as an int >= 1"),
        ({"max_silence_s": float("nan")}, "max_silence_s above 0"),
    ],
)
def test_what_no_policy_can_be_is_refused_by_name(fields, message):
    with pytest.raises(ConfigError, match=message):
        CriticFailurePolicy(**fields)


def test_a_text_means_the_default_policy_with_that_end():
    assert failure_policy("truncate") == CriticFailurePolicy(then="truncate")
    policy = CriticFailurePolicy(retries=2, fallbacks=[ScriptedCritic(), "http://two:8400"])
    assert failure_policy(policy) is policy
    assert policy.fallbacks[1] == "http://two:8400"
    with pytest.raises(ConfigError, match=r"Unknown critic\.on_error 'trunkate'.*Did you mean 'truncate'"):
        failure_policy("trunkate", "critic.on_error")
