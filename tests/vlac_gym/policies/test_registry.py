"""Specs become policies; wrong ones are refused with what exists."""

import pickle

import pytest

from vlac_gym.errors import ConfigError
from vlac_gym.policies import Policy, known_policies, make_policy, own, register_policy
from vlac_gym.policies.expert import ExpertPolicy
from vlac_gym.policies.simple import RandomPolicy, ZeroPolicy
from vlac_gym.specs.registry import Registry


def test_specs_name_their_policies():
    assert isinstance(make_policy("random"), RandomPolicy)
    assert isinstance(make_policy(" zero "), ZeroPolicy)
    expert = make_policy("expert:noise=0.1,fail=drop")
    assert isinstance(expert, ExpertPolicy)
    assert (expert.options.noise, expert.options.fail) == (0.1, "drop")


@pytest.mark.parametrize("spec", ["random", "zero", "expert", "expert:noise=0.25,fail=beside"])
def test_every_policy_follows_the_protocol_and_pickles(spec):
    policy = pickle.loads(pickle.dumps(make_policy(spec)))
    assert isinstance(policy, Policy)


def test_unknown_policy_is_answered_with_the_known_names_and_the_nearest():
    with pytest.raises(
        ConfigError, match=r"Unknown policy 'expret'.*expert, lerobot, random, replay.*'expert'"
    ):
        make_policy("expret")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "Expected a policy spec"),
        ("random:3", "takes no argument, got '3'"),
        ("zero:x", "takes no argument, got 'x'"),
        ("replay", "needs an action file"),
        ("expert:speed=2", "Unknown expert option 'speed'"),
        ("expert:noise=much", "Expected expert option noise as float, got 'much'"),
        ("expert:noise=-0.1", r"Expected expert noise in \[0, 10\]"),
        ("expert:noise=nan", r"Expected expert noise in \[0, 10\]"),
        (
            "expert:fail=slip",
            "Unknown expert fault 'slip'.*beside, block_view, drop, empty_hand, hover, none, push, stop, wrong_object",
        ),
    ],
)
def test_wrong_specs_are_refused_before_anything_is_made(spec, message):
    with pytest.raises(ConfigError, match=message):
        make_policy(spec)


def test_a_registered_policy_is_made_and_names_stay_unique(monkeypatch):
    fresh = Registry("policy", "'expert'", known_policies(), own.adopt_policy)
    monkeypatch.setattr("vlac_gym.policies.registry._POLICIES", fresh)
    register_policy("still", "vlac_gym.policies.simple:ZeroPolicy.from_spec")
    assert isinstance(make_policy("still"), ZeroPolicy)
    with pytest.raises(ConfigError, match="Policy 'still' exists already"):
        register_policy("still", "a:b")
    with pytest.raises(ConfigError, match="letters, digits and underscores"):
        register_policy("no-dash", "a:b")
    with pytest.raises(ConfigError, match="module:callable"):
        register_policy("other", "module")
