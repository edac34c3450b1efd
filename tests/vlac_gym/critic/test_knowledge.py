"""What a critic says it knows, compared with what it is shown."""

from dataclasses import replace

import pytest

from vlac_gym.critic.knowledge import find_mismatches, parse_knowledge, shared_knowledge
from vlac_gym.errors import ConfigError
from vlac_gym.types import CriticInfo, CriticKnowledge

NARROW = CriticKnowledge(
    tasks=("open the drawer", "close the drawer"),
    task_suites=("libero_goal",),
    views=("agentview",),
    inputs=(),
    renderers=("mujoco 3.3.2",),
)


def test_a_critic_that_declares_nothing_knows_everything():
    info = CriticInfo("any", inputs=("goal_image",))
    assert (
        find_mismatches(
            info,
            task="fly",
            task_suite="moon",
            view="wrist",
            renderer="mujoco 9",
            inputs=("references",),
        )
        == []
    )


def test_what_the_caller_does_not_know_is_not_compared():
    assert find_mismatches(CriticInfo("narrow", knows=NARROW), task="open the drawer") == []


@pytest.mark.parametrize(
    ("shown", "text", "is_grave"),
    [
        ({"task": "Open the drawer"}, "does not know the task 'Open the drawer'", True),
        ({"task_suite": "libero_goal_swap"}, "a task of the suite 'libero_goal_swap'", True),
        ({"view": "wrist"}, "the view 'wrist'; it was trained on 'agentview'", True),
        ({"inputs": ("references",)}, "the input 'references'; it was trained on none", True),
        (
            {"renderer": "mujoco 3.17.0"},
            "pictures of 'mujoco 3.17.0'; it was trained on 'mujoco 3.3.2'",
            False,
        ),
    ],
    ids=["task", "suite", "view", "input", "renderer"],
)
def test_each_thing_it_does_not_know_is_named(shown, text, is_grave):
    info = CriticInfo("narrow", knows=NARROW)
    (found,) = find_mismatches(info, **({"task": "open the drawer"} | shown))
    assert text in found.text
    assert found.is_grave is is_grave


def test_a_goal_image_of_the_critics_own_counts_as_shown():
    info = CriticInfo("narrow", knows=NARROW, inputs=("goal_image",))
    (found,) = find_mismatches(info, task="open the drawer")
    assert "the input 'goal_image'" in found.text


def test_the_nearest_task_comes_first_and_the_rest_is_counted():
    tasks = (*(f"pick up thing {i}" for i in range(9)), "open the drawer")
    info = CriticInfo("many", knows=CriticKnowledge(tasks=tasks))
    (found,) = find_mismatches(info, task="open the drawers")
    assert "trained on 'open the drawer'" in found.text
    assert found.text.endswith("and 6 more")


def test_knowledge_is_read_from_its_json_form():
    assert parse_knowledge({"tasks": ["a"], "inputs": [], "views": None}, "x.json") == CriticKnowledge(
        tasks=("a",), inputs=()
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"taks": []}, "Unknown field in x.json 'taks'.*tasks"),
        ({"tasks": "open"}, "tasks in x.json as a list of texts or null, got 'open'"),
        ({"views": [1]}, r"views in x.json as a list of texts or null, got \[1\]"),
    ],
)
def test_malformed_knowledge_is_refused(content, message):
    with pytest.raises(ConfigError, match=message):
        parse_knowledge(content, "x.json")


def test_several_critics_share_what_all_of_them_know():
    other = CriticKnowledge(tasks=("close the drawer", "fly", "open the drawer"), views=("wrist",))
    shared = shared_knowledge([NARROW, CriticKnowledge(), other])
    assert shared == replace(NARROW, views=())
    assert shared_knowledge([CriticKnowledge()] * 2) == CriticKnowledge()


def test_a_fingerprint_tells_judges_apart_and_not_machines():
    facts = {"details": {"dial": 1, "memory_plan": {"bytes": 1}}}
    first = CriticInfo("a", "m", "1", "cpu", **facts)
    elsewhere = CriticInfo("a", "m", "1", "cuda:0", details={"dial": 1, "memory_plan": {"bytes": 2}})
    others = [CriticInfo("b", "m", "1"), CriticInfo("a", "m", "1", details={"dial": 2})]
    assert first.fingerprint == elsewhere.fingerprint
    assert len({first.fingerprint, *(other.fingerprint for other in others)}) == 3
    assert CriticInfo("a", fingerprint="0123456789abcdef").fingerprint == "0123456789abcdef"
