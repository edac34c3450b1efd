"""Training's other wordings keep objects and places, and leave words for the report card's probe."""

import re

import numpy as np
import pytest

from vlac_gym.envs.libero.tasks import list_tasks
from vlac_gym.report_card.probes import paraphrases
from vlac_gym.train_nano.rewording import WORDINGS_PER_TASK, Wordings, reword

NOUNS = {
    "pick up the black bowl between the plate and the ramekin and place it on the plate": (
        "black bowl between plate ramekin plate"
    ),
    "pick up the black bowl next to the ramekin and place it on the plate": "black bowl beside ramekin plate",
    "pick up the black bowl from table center and place it on the plate": "black bowl from table center plate",
    "pick up the black bowl on the cookie box and place it on the plate": "black bowl on cookie box plate",
    "pick up the black bowl in the top drawer of the wooden cabinet and place it on the plate": (
        "black bowl in top drawer of wooden cabinet plate"
    ),
    "pick up the black bowl on the ramekin and place it on the plate": "black bowl on ramekin plate",
    "pick up the black bowl next to the cookie box and place it on the plate": "black bowl beside cookie box plate",
    "pick up the black bowl on the stove and place it on the plate": "black bowl on stove plate",
    "pick up the black bowl next to the plate and place it on the plate": "black bowl beside plate plate",
    "pick up the black bowl on the wooden cabinet and place it on the plate": "black bowl on wooden cabinet plate",
    "pick up the alphabet soup and place it in the basket": "alphabet soup basket",
    "pick up the cream cheese and place it in the basket": "cream cheese basket",
    "pick up the salad dressing and place it in the basket": "salad dressing basket",
    "pick up the bbq sauce and place it in the basket": "bbq sauce basket",
    "pick up the ketchup and place it in the basket": "ketchup basket",
    "pick up the tomato sauce and place it in the basket": "tomato sauce basket",
    "pick up the butter and place it in the basket": "butter basket",
    "pick up the milk and place it in the basket": "milk basket",
    "pick up the chocolate pudding and place it in the basket": "chocolate pudding basket",
    "pick up the orange juice and place it in the basket": "orange juice basket",
}  # fmt: skip

PUT_DOWN = r"(?:place|put|set|lay) it (?:onto|on|into|inside|in)"
CARRIER = {
    *["please", "now", "next", "your", "task", "robot", "could", "you", "can"],
    *["pick", "take", "lift", "up", "grasp", "get"],
    *["the", "and", "then"],
}  # fmt: skip


def what_remains(wording: str) -> str:
    """The words that name things and places, those of one meaning written alike."""
    text = re.sub(r"[.!?:,]", "", wording.lower())
    text = re.sub(PUT_DOWN, "", text)
    text = re.sub(r"\bright next to\b|\bnext to\b", "beside", text).replace("in between", "between")
    return " ".join(word for word in text.split() if word not in CARRIER)


def test_nouns_and_places_stay_in_every_wording_of_every_task():
    for task, nouns in NOUNS.items():
        rng = np.random.default_rng(0)
        wordings = {reword(task, rng) for _ in range(200)}
        assert len(wordings) > 100
        assert {what_remains(wording) for wording in wordings} == {nouns}, task


def test_the_tasks_checked_are_liberos():
    pytest.importorskip("libero")
    assert [t.language for s in ("libero_spatial", "libero_object") for t in list_tasks(s)] == list(NOUNS)


@pytest.mark.parametrize(
    ("task", "never"),
    [
        ("turn on the stove and put the moka pot on it", r"onto|place it|turn onto"),
        ("pick up the black bowl on the stove and place it on the plate", r"onto the stove"),
        (
            "put the black bowl in the drawer of the cabinet and close it",
            r"drawer (?:in|on)|into the cabinet",
        ),
        ("put both the soup and the butter in the basket", r"both the soup,|soup then"),
    ],
)
def test_prepositions_change_only_where_something_is_put(task, never):
    rng = np.random.default_rng(1)
    wordings = [reword(task, rng).lower() for _ in range(300)]
    assert len(set(wordings)) > 50
    assert not [wording for wording in wordings if re.search(never, wording)]


def test_each_choice_is_made():
    task = "pick up the milk and place it in the basket"
    rng = np.random.default_rng(2)
    wordings = {reword(task, rng) for _ in range(3000)}
    assert {
        "pick up the milk and place it in the basket",
        "Pick up the milk and place it in the basket.",
        "please pick up the milk and place it in the basket",
        "PICK UP THE MILK AND PLACE IT IN THE BASKET",
        "Pick Up The Milk And Place It In The Basket!",
        "Could you pick up the milk and place it in the basket?",
        "robot, pick up the milk and place it in the basket",
    } <= wordings
    text = " ".join(wordings).lower()
    for part in ("lift up the milk", "grasp the", ", then lay", " and then put it", "into the", "inside the"):
        assert part in text, part
    assert not re.search(r"please[^?.!]*\?\?|\.\.|!!", text)


def test_an_end_mark_is_replaced_not_doubled():
    rng = np.random.default_rng(3)
    wordings = [reword("pick up the milk.", rng) for _ in range(200)]
    assert not [wording for wording in wordings if re.search(r"[.!?]{2}", wording)]
    assert any(wording[-1].isalpha() for wording in wordings)


def test_the_probes_synonyms_are_never_trained():
    trained = {text.lower() for texts in Wordings(list(NOUNS), 0.5, 0).texts for text in texts}
    assert not [text for text in trained if re.search(r"\b(?:grab|pull)\b", text)]
    for task in NOUNS:
        synonyms = paraphrases(task)[3]
        assert synonyms.startswith("grab")
        assert synonyms not in trained


def test_wordings_are_distinct_bounded_and_repeatable():
    tasks = ["pick up the milk and place it in the basket", "x"]
    first, second = Wordings(tasks, 0.5, 7), Wordings(tasks, 0.5, 7)
    assert first.texts == second.texts
    assert first.texts != Wordings(tasks, 0.5, 8).texts
    for task, texts, held_out in zip(tasks, first.texts, first.held_out):
        assert texts[0] == task
        assert len(texts) == len(set(texts)) == WORDINGS_PER_TASK
        assert held_out not in texts
    drawn = np.array([0, 1] * 500)
    assert (first.draw(drawn) == second.draw(drawn)).all()


def test_the_share_says_how_many_are_reworded():
    tasks = np.zeros(4000, np.int64)
    drawn = Wordings(["pick up the milk"], 0.25, 0).draw(tasks)
    assert abs((drawn > 0).mean() - 0.25) < 0.03
    assert set(drawn) == set(range(WORDINGS_PER_TASK))
    assert (Wordings(["pick up the milk"], 1.0, 0).draw(tasks) > 0).all()


def test_share_0_keeps_the_instruction_alone():
    wordings = Wordings(["pick up the milk", "x"], 0.0, 0)
    assert wordings.texts == [["pick up the milk"], ["x"]]
    assert wordings.held_out == ["pick up the milk", "x"]
    assert wordings.draw(np.array([1, 0, 1])).tolist() == [0, 0, 0]


def test_draws_go_on_from_a_saved_state() -> None:
    tasks, asked = list(NOUNS)[:3], np.arange(3).repeat(20)
    first = Wordings(tasks, 0.5, 7)
    beginning = first.draw(asked)
    saved = first.state()
    rest = first.draw(asked)
    assert not np.array_equal(beginning, rest)
    resumed = Wordings(tasks, 0.5, 7)
    resumed.restore(saved)
    np.testing.assert_array_equal(resumed.draw(asked), rest)
