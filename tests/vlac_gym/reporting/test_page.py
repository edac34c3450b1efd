import re
from html.parser import HTMLParser

import pytest

from vlac_gym.reporting.page import render_page
from vlac_gym.reporting.reading import read_summary
from vlac_gym.reporting.run_folder import RunFolder
from vlac_gym.types import CriticInfo


@pytest.fixture
def summary(tmp_path, train_trace, eval_trace):
    def build(*, mode="train", is_privileged=True, task="stack", traces=None):
        run = {"task_suite": "libero_spatial", "task_id": 0, "policy": "expert", "critic": "oracle"}
        run |= {"mode": mode, "episodes": 2, "seed": 0}
        critic = CriticInfo(name="oracle", is_privileged=is_privileged)
        folder = RunFolder(tmp_path / "run", run=run, critic=critic)
        default = [eval_trace()] if mode == "eval" else [train_trace(task=task, is_privileged=is_privileged)]
        for trace in default if traces is None else traces:
            folder.add_episode(trace, with_video=False, extra={})
        folder.finish("complete")
        return folder.summary

    return build


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "img"):
            self.open.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_page_is_balanced_and_refers_to_nothing_outside_its_folder(summary):
    page = render_page(summary())
    tags = _Tags()
    tags.feed(page)

    assert tags.open == []
    assert tags.links == ["#episode-0", "episode-000.png"]
    assert not re.search(r"https?://|<script|@import|url\(", page)


def test_texts_are_escaped(summary):
    page = render_page(summary(task="<b>bowl</b> & plate"))

    assert "<b>bowl</b>" not in page
    assert "&lt;b&gt;bowl&lt;/b&gt; &amp; plate" in page


def test_failed_run_shows_its_error(summary):
    page = render_page({**summary(), "status": "failed", "error": "No reply from critic"})

    assert "The run stopped early: No reply from critic" in page


def test_reading_has_five_lines_that_name_the_agreement(summary):
    lines = read_summary(summary())

    assert lines == [
        "Ran 1 episode of libero_spatial task 0 (stack) with policy expert in train mode: 4 steps in 1.5 s.",
        "Reward: the critic's; mean return 1.00. Of 1 episode, 1 ended because the critic said done, 0 at the limit.",
        "Simulator: success in 1 of 1 episode, first seen at step 3.",
        "Critic oracle (privileged: it reads the simulator's state, not only pictures): 4 calls, 2.0 ms per check, "
        "0 failures.",
        "Reading: critic and simulator agree about every episode, in stops and in reward.",
    ]


def test_reading_of_an_eval_run_says_the_critic_was_not_asked(summary):
    lines = read_summary(summary(mode="eval", is_privileged=False))

    assert lines[1] == "Reward: the simulator's own, untouched; mean return 0.00."
    assert lines[3] == "Critic oracle: received no call, as eval mode promises."
    assert lines[4] == "Reading: the policy solved 0 of 1, judged by the simulator alone."


def test_reading_points_at_episodes_where_they_disagree(summary):
    fine = summary()
    episode = fine["episodes"][0]
    false_stop = {**episode, "episode": 1, "success": False}
    missed = {**episode, "episode": 2, "critic_done_step": None}
    again = {**false_stop, "episode": 3}
    lines = read_summary({**fine, "episodes": [episode, false_stop, missed, again]})

    assert lines[4] == (
        "Reading: critic and simulator disagree: the critic said done without success in episodes 1, 3; "
        "the critic missed the success in episode 2; look at the videos."
    )


def test_failure_that_is_paid_like_a_success_is_no_agreement(summary):
    fine = summary()
    success = fine["episodes"][0]
    failure = {**success, "success": False, "critic_done_step": None}
    failed = [{**failure, "episode": 1, "return": 0.95}, {**failure, "episode": 2, "return": 0.25}]
    told = {**fine, "episodes": [success, *failed]}
    lines = read_summary(told)

    assert "mean return 0.73; 2 episodes without success paid 0.60 on average, at most 0.95." in lines[1]
    assert lines[4] == (
        "Reading: critic and simulator disagree: it paid half of a success or more without one in episode 1; "
        "look at the videos."
    )
    page = render_page(told)
    assert '<td><span class="bad">0.950</span></td>' in page
    assert "<td>0.250</td>" in page
    assert "; 1 episode without success paid 0.25." in read_summary({**fine, "episodes": failed[1:]})[1]


def test_reading_of_nothing_says_so(summary):
    assert read_summary({**summary(), "episodes": []}) == [
        "No episode was finished, so there is nothing to read."
    ]
