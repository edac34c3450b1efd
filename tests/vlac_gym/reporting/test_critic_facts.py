"""How a critic is called in summaries and on pages."""

import pytest

from vlac_gym.critic.ensemble import EnsembleCritic
from vlac_gym.critic.oracle import OracleCritic
from vlac_gym.critic.scripted import ScriptedCritic
from vlac_gym.reporting.critic_facts import critic_facts, critic_title
from vlac_gym.types import CriticInfo


@pytest.mark.parametrize(
    ("info", "title"),
    [
        (CriticInfo("oracle"), "oracle"),
        (CriticInfo("nano", "/site/nano/checkpoint"), "nano"),
        (CriticInfo("transformers", "/models/vlac-2b"), "transformers vlac-2b"),
        (
            CriticInfo("remote", "http://h:1", details={"urls": ["http://h:1"]}),
            "remote http://h:1 at http://h:1",
        ),
    ],
)
def test_a_title_is_name_model_and_place(info, title):
    assert critic_title(info) == title


def test_the_title_of_an_ensemble_names_its_members():
    class Served(ScriptedCritic):
        def describe(self):
            return CriticInfo("transformers", "/m/vlac-2b", details={"urls": ["http://h:1"]})

    info = EnsembleCritic([OracleCritic(), Served(), ScriptedCritic()], "median").describe()
    assert critic_title(info) == (
        "ensemble (median of oracle simulator + transformers vlac-2b at http://h:1 + scripted)"
    )
    assert [own["name"] for own in critic_facts(info)["details"]["members"]] == [
        "oracle",
        "transformers",
        "scripted",
    ]
