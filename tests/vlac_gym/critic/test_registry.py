"""Specs of critics that are refused before anything is built, and critics of a user's own."""

import importlib
import sys

import numpy as np
import pytest

from vlac_gym.critic import known_critics, make_critic, register_critic, registry
from vlac_gym.critic.registry import check_critic
from vlac_gym.errors import ConfigError
from vlac_gym.specs.registry import Registry


def test_a_factory_of_ones_own_makes_a_critic():
    check_critic("own_policies:critic?answer=0.75")
    critic = make_critic("own_policies:critic?answer=0.75")
    assert critic.success_prob([np.zeros((2, 2, 3), np.uint8)], ["lift"]).tolist() == [0.75]


def test_what_is_no_critic_is_refused():
    with pytest.raises(ConfigError, match=r"Expected a critic.* got 3, which lacks success_prob"):
        make_critic("own_policies:number")
    with pytest.raises(ConfigError, match=r"Unknown critic 'no_such_module'.*module:factory"):
        check_critic("no_such_module:make")


def own_factory(argument):
    raise AssertionError("made")


def own_check(argument):
    if argument != "good":
        raise ConfigError(f"Expected mine:good, got mine:{argument}.")


def test_a_registered_critic_brings_its_own_check(monkeypatch):
    fresh = Registry("critic", "'oracle'", known_critics(), registry._adopt)
    monkeypatch.setattr(registry, "_CRITICS", fresh)
    monkeypatch.setitem(sys.modules, "my_critics", sys.modules[__name__])
    register_critic("mine", "my_critics:own_factory", check="my_critics:own_check")
    register_critic("other", "my_critics:own_factory")
    check_critic("mine:good")
    check_critic("other:anything")
    with pytest.raises(ConfigError, match="Expected mine:good, got mine:bad"):
        check_critic("mine:bad")
    with pytest.raises(ConfigError, match="check as 'module:callable', got 'own_check'"):
        register_critic("third", "my_critics:own_factory", check="own_check")
    assert "third" not in known_critics()


GOOD = {
    "oracle": "oracle",
    "noisy_oracle": "noisy_oracle:tpr=0.8,delay=2",
    "random": "random:done_rate=0.02",
    "recorded": "recorded:answers.jsonl",
    "ensemble": "ensemble:transformers:/models/vlac|http://one:8400|?combine=mean",
    "scripted": "scripted:0.1,0.95",
    "nano": "nano?reading=plain,device=cpu",
    "transformers": "transformers:/models/vlac?thinking=true,dtype=float32",
    "swift": "swift:/models/vlac?value_rule=simple,max_batch_size=4",
    "openai": "openai:http://host:8000/v1#vlac-2b?timeout_s=5",
    "http": "http://one:8400,http://two:8400?timeout_s=5",
    "https": "https://one:8400?encoding=png",
}
"""A spec of each registered critic whose options fit; most of what they name is not there."""


def test_every_registered_critic_has_a_good_spec_here():
    assert GOOD.keys() == known_critics().keys()


@pytest.mark.parametrize("spec", GOOD.values())
def test_options_that_fit_are_not_refused(spec):
    check_critic(spec)


BAD = [
    ("oracle:x", "'oracle' takes no argument, got 'x'"),
    ("noisy_oracle:tpr=2", r"noisy_oracle tpr in \[0, 1\], got 2.0"),
    ("noisy_oracle:rate=0.5", "Unknown noisy_oracle option 'rate'"),
    ("random:done_rate=2", r"random done_rate in \[0, 1\], got 2.0"),
    ("recorded:answers.jsonl?x=1", "Unknown recorded:PATH option 'x'"),
    ("recorded", "Expected a spec recorded:PATH"),
    ("ensemble:nano", "two or more critics"),
    ("ensemble:oracle|noisy_oracle:tpr=2", r"noisy_oracle tpr in \[0, 1\], got 2.0"),
    ("ensemble:oracle|oracle|?combine=most", "Unknown combine 'most'"),
    ("scripted:much", "got 'scripted:much'"),
    ("nano?foo=1", "option 'foo'"),
    ("nano?reading=plane", "Unknown reading 'plane'.*Did you mean 'plain'"),
    ("nano:/models/vlac", "behind '\\?' only, got '/models/vlac'"),
    ("transformers:/models/vlac?devise=cpu", "Unknown transformers:PATH option 'devise'.*'device'"),
    ("transformers:/models/vlac?unfinished_value_limit=2", r"unfinished_value_limit in \(0, 1\]"),
    ("transformers", "Expected a spec transformers:PATH"),
    ("swift:/models/vlac?foo=1", "Unknown swift:PATH option 'foo'"),
    ("openai:http://host:8000/v1", "openai:URL#MODEL"),
    ("openai:http://host/v1#m?timeout_s=soon", "option timeout_s as float, got 'soon'"),
    ("http://host:8400?timeout_s=-1", "timeout_s above 0, got -1.0"),
    ("http://host:8400?token=secret", "Unknown http://HOST:PORT option 'token'"),
    ("http://", "Expected a critic's URL"),
    ("https://host:8400?encoding=jpg", "Unknown frame encoding 'jpg'"),
]


def test_every_registered_critic_has_a_bad_spec_here():
    assert {registry._CRITICS._parts(spec)[0] for spec, _ in BAD} == known_critics().keys()


@pytest.mark.parametrize(("spec", "message"), BAD)
def test_options_that_do_not_fit_are_refused_without_building_a_critic(spec, message):
    with pytest.raises(ConfigError, match=message):
        check_critic(spec)


def test_what_needs_a_missing_package_is_left_to_the_one_who_builds_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    for name in [name for name in sys.modules if name.startswith("vlac_gym.critic.engines.transformers")]:
        monkeypatch.delitem(sys.modules, name)
    check_critic("nano?foo=1")
    with pytest.raises(ConfigError, match="Unknown reading 'plane'"):
        check_critic("nano?reading=plane")


def test_a_checked_critic_loads_no_engine_unless_an_option_is_its(monkeypatch):
    seen = []
    load = importlib.import_module
    monkeypatch.setattr(importlib, "import_module", lambda name: seen.append(name) or load(name))
    check_critic("nano?reading=plain")
    assert not [name for name in seen if "engines" in name]
    check_critic("nano?device=cpu")
    assert [name for name in seen if "engines" in name] == ["vlac_gym.critic.engines.transformers"]
