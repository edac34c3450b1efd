"""VLACCritic over a scripted engine: what is asked, what is answered, what is refused."""

import logging
from itertools import pairwise

import numpy as np
import pytest

from vlac_gym.critic.base import Critic
from vlac_gym.critic.engines.base import EngineReply
from vlac_gym.critic.engines.scripted import ScriptedEngine, scripted_reply
from vlac_gym.critic.vlac.critic import VLACConfig, VLACCritic
from vlac_gym.critic.vlac.pairs import episode_pairs
from vlac_gym.errors import ConfigError, CriticResponseError, CriticServerError

TASK = "open the drawer"


def frame(level: int, height: int = 4) -> np.ndarray:
    return np.full((height, 4, 3), level, np.uint8)


def levels(request) -> list[int]:
    return [int(picture[0, 0, 0]) for picture in request.frames]


def test_it_is_a_critic():
    assert isinstance(VLACCritic(ScriptedEngine([])), Critic)


def test_success_prob_asks_once_for_the_batch_and_reads_the_mean():
    engine = ScriptedEngine([scripted_reply("1", {"1": 0.75, "0": 0.25}), "0"])
    critic = VLACCritic(engine, VLACConfig(reading="exact"))
    probs = critic.success_prob([frame(1), frame(2, height=9)], [TASK, "close the drawer"])
    assert probs.dtype == np.float32
    assert probs.tolist() == [0.75, 0.0]
    (batch,) = engine.batches
    assert [levels(request) for request in batch] == [[1], [2]]
    assert [request.answer for request in batch] == ["number", "number"]
    assert "<task> close the drawer </task>" in batch[1].prompt
    assert "<image>" not in batch[0].prompt


def test_goal_image_goes_before_the_frame():
    engine = ScriptedEngine(["1", "0"])
    VLACCritic(engine, goal_image=frame(200)).success_prob([frame(1)], [TASK])
    VLACCritic(engine, VLACConfig(goal_needs_task=False), goal_image=frame(200)).success_prob(
        [frame(1)], [TASK]
    )
    with_task, without_task = engine.requests
    assert levels(with_task) == levels(without_task) == [200, 1]
    assert with_task.prompt.startswith(f"<goal> <task> {TASK} </task>: <image>")
    assert without_task.prompt.startswith("<goal> <image>")
    assert with_task.shared_frames == 1


def test_progress_is_signed_and_in_units_of_one():
    critic = VLACCritic(ScriptedEngine(["+50", "-20", "0"]))
    progress = critic.progress([frame(1)] * 3, [frame(2)] * 3, [TASK] * 3)
    assert progress.dtype == np.float32
    np.testing.assert_array_equal(progress, np.array([0.5, -0.2, 0.0], np.float32))


def test_progress_without_references_shows_the_pair_alone():
    engine = ScriptedEngine(["0"])
    VLACCritic(engine).progress([frame(1)], [frame(2)], [TASK], starts=[frame(9)])
    assert levels(engine.requests[0]) == [1, 2]
    assert engine.requests[0].shared_frames == 0


def test_references_of_the_constructor_and_of_the_call():
    engine = ScriptedEngine(["0"] * 3)
    critic = VLACCritic(engine, references=[frame(100), frame(101)])
    critic.progress([frame(1)], [frame(2)], [TASK])
    critic.progress([frame(1)], [frame(2)], [TASK], starts=[frame(0)])
    critic.progress([frame(1)], [frame(2)], [TASK], [frame(50), frame(51), frame(52)])
    assert [levels(request) for request in engine.requests] == [
        [100, 101, 1, 1, 2],
        [100, 101, 0, 1, 2],
        [50, 51, 52, 1, 1, 2],
    ]
    assert " 50% <image>\n" in engine.requests[2].prompt


def test_shared_frames_count_the_common_start_only_if_it_is_common():
    engine = ScriptedEngine(["0"] * 4)
    critic = VLACCritic(engine, references=[frame(100), frame(101)])
    critic.value([frame(0), frame(1), frame(2)], TASK)
    critic.progress([frame(1), frame(2)], [frame(3), frame(4)], [TASK] * 2)
    assert [request.shared_frames for request in engine.requests] == [3, 3, 2, 2]


def test_value_compares_neighbours_and_shows_the_first_frame_with_references():
    engine = ScriptedEngine(["+50", "+50"])
    critic = VLACCritic(engine, references=[frame(100), frame(101)])
    values = critic.value([frame(0), frame(1), frame(2)], TASK)
    assert values.dtype == np.float32
    assert values.tolist() == [0.0, 0.5, 0.75]
    assert [levels(request) for request in engine.requests] == [[100, 101, 0, 0, 1], [100, 101, 0, 1, 2]]
    assert len(engine.batches) == 1


@pytest.mark.parametrize("limit", [None, 0.6])
def test_values_of_episodes_are_asked_for_together_and_equal_each_alone(limit):
    replies = {"pair": ["+10", "+20", "-5", "+40", "+7"], "done": ["0", "1", "0", "0", "1"]}
    config = VLACConfig(unfinished_value_limit=limit)
    episodes = [[frame(10 * k + i) for i in range(count)] for k, count in enumerate((2, 0, 1, 4, 2))]
    tasks = [f"{TASK} {k}" for k in range(len(episodes))]

    def engine(pairs: slice) -> ScriptedEngine:
        return ScriptedEngine(replies["pair"][pairs] + (replies["done"][pairs] if limit else []))

    together = engine(slice(None))
    values = VLACCritic(together, config).values(episodes, tasks)
    pairs_of = [pair for frames in episodes for pair in pairwise(frames)]
    asked = [[before[0, 0, 0], after[0, 0, 0]] for before, after in pairs_of]
    if limit:
        asked += [[after[0, 0, 0]] for _, after in pairs_of]
    (batch,) = together.batches  # pairs and done checks in one call: one wait for the device brings both
    assert [levels(request) for request in batch] == asked
    end = 0
    for frames, task, ours in zip(episodes, tasks, values, strict=True):
        pairs = slice(end, end := end + max(0, len(frames) - 1))
        np.testing.assert_array_equal(ours, VLACCritic(engine(pairs), config).value(frames, task))


def test_values_show_each_episode_its_own_first_frame_beside_the_references():
    engine = ScriptedEngine(["+10"] * 3)
    episodes = [[frame(1), frame(2)], [frame(5), frame(6), frame(7)]]
    VLACCritic(engine, references=[frame(100), frame(200)]).values(episodes, [TASK, TASK])
    assert [levels(request)[2] for request in engine.requests] == [1, 5, 5]


class HalfOfValue(VLACCritic):
    def value(self, frames, task, references=None):
        return super().value(frames, task, references) / 2


class HalfOfBoth(VLACCritic):
    def value_and_progress(self, frames, task, references=None):
        values, progress = super().value_and_progress(frames, task, references)
        return values / 2, progress / 2


@pytest.mark.parametrize("kind", [HalfOfValue, HalfOfBoth])
def test_values_of_a_subclass_are_its_own(kind):
    critic = kind(ScriptedEngine(["+50", "+40"]))
    values = critic.values([[frame(0), frame(1)], [], [frame(2), frame(3)]], [TASK] * 3)
    assert [each.tolist() for each in values] == [[0.0, 0.25], [], [0.0, pytest.approx(0.2)]]


def test_values_say_which_episode_and_which_frame_is_wrong():
    critic = VLACCritic(ScriptedEngine([]))
    whole, broken = [frame(0), frame(1)], [frame(0), np.zeros((2, 2))]
    with pytest.raises(ConfigError, match=r"Expected episodes\[1\]\[1\] as uint8"):
        critic.values([whole, broken], [TASK, TASK])
    with pytest.raises(ConfigError, match=r"Expected tasks\[1\] without '<'"):
        critic.values([whole, whole], [TASK, "<image>"])
    with pytest.raises(ConfigError, match=r"Expected frames\[1\] as uint8"):
        critic.value(broken, TASK)
    with pytest.raises(ConfigError, match="Expected task as a non-empty text, got ''"):
        critic.value(whole, "")


@pytest.mark.parametrize("kind", [np.stack, tuple, iter])
def test_values_of_any_sequence_of_frames_share_its_first_frame(kind):
    engine = ScriptedEngine(["+10", "+20"])
    critic = VLACCritic(engine, references=[frame(100), frame(200)])
    values = critic.value(kind([frame(1), frame(2), frame(3)]), TASK)
    np.testing.assert_allclose(values, [0.0, 0.1, 0.28], rtol=1e-6)
    assert [request.shared_frames for request in engine.requests] == [3, 3]
    (*_, between), (_, _, _, again, _) = (request.frames for request in engine.requests)
    assert again is between


def test_value_stays_in_its_range_at_every_frame():
    critic = VLACCritic(ScriptedEngine(["-50", "+50"]))
    assert critic.value([frame(i) for i in range(3)], TASK).tolist() == [0.0, 0.0, 0.5]


def test_value_follows_the_chosen_rule():
    critic = VLACCritic(ScriptedEngine(["+75", "-90"]), VLACConfig(value_rule="mixed"))
    values = critic.value([frame(i) for i in range(3)], TASK)
    np.testing.assert_array_equal(values, np.array([0.0, 0.75, 0.1], np.float32))


@pytest.mark.parametrize(("count", "values"), [(0, []), (1, [0.0])])
def test_value_of_no_pairs_asks_nothing(count, values):
    engine = ScriptedEngine([])
    assert VLACCritic(engine).value([frame(0)] * count, TASK).tolist() == values
    assert engine.requests == []


def test_empty_batches_ask_nothing():
    engine = ScriptedEngine([])
    critic = VLACCritic(engine)
    assert critic.success_prob([], []).shape == (0,)
    assert critic.progress([], [], []).shape == (0,)
    assert engine.batches == []


def test_thinking_asks_for_text_and_reads_behind_it():
    engine = ScriptedEngine(["<think>first image progressing: 10% </think>+20"])
    critic = VLACCritic(engine, VLACConfig(thinking=True, max_thinking_tokens=77))
    np.testing.assert_array_equal(
        critic.progress([frame(1)], [frame(2)], [TASK]), np.array([0.2], np.float32)
    )
    assert engine.requests[0].answer == "text"
    assert engine.requests[0].max_new_tokens == 77


def test_rich_mean_beyond_the_scale_is_clipped_but_seen_by_judge_done():
    # (1 * 0.6 + 2 * 0.4) / 1.0
    reply = scripted_reply("1", {"1": 0.6, "2": 0.4})
    critic = VLACCritic(ScriptedEngine([reply, reply]))
    assert critic.judge_done([frame(1)], [TASK]).tolist() == [1.4]
    assert critic.success_prob([frame(1)], [TASK]).tolist() == [1.0]


@pytest.mark.parametrize("said", ["2", "57"])
def test_done_reply_that_is_neither_yes_nor_no_is_refused(said):
    with pytest.raises(CriticResponseError, match=f"Expected 0 or 1 as the critic's reply, got '{said}'"):
        VLACCritic(ScriptedEngine([said])).success_prob([frame(1)], [TASK])


@pytest.mark.parametrize("said", ["+101", "-250"])
def test_pair_reply_out_of_scale_is_refused(said):
    with pytest.raises(CriticResponseError, match="a number from -100 to 100"):
        VLACCritic(ScriptedEngine([said])).progress([frame(1)], [frame(2)], [TASK])


def test_out_of_scale_can_be_clipped_logged_once_and_counted(caplog):
    critic = VLACCritic(ScriptedEngine(["57", "-250"]), VLACConfig(out_of_scale="clip"))
    with caplog.at_level(logging.WARNING):
        assert critic.success_prob([frame(1)], [TASK]).tolist() == [1.0]
        assert critic.progress([frame(1)], [frame(2)], [TASK]).tolist() == [-1.0]
    assert [record.getMessage().split(";")[0] for record in caplog.records] == [
        "Critic reply '57' is out of scale (expected 0 or 1)"
    ]
    assert critic.describe().details["out_of_scale_replies"] == 2


def test_reply_without_number_fails_the_whole_batch_with_the_reply():
    with pytest.raises(CriticResponseError, match="got 'no idea'"):
        VLACCritic(ScriptedEngine(["1", "no idea"])).success_prob([frame(1)] * 2, [TASK] * 2)


def test_engine_that_loses_a_reply_is_noticed():
    class Forgetful(ScriptedEngine):
        def generate(self, requests):
            return super().generate(requests)[1:]

    with pytest.raises(CriticServerError, match="Expected 2 replies from Forgetful, got 1"):
        VLACCritic(Forgetful(["1", "1"])).success_prob([frame(1)] * 2, [TASK] * 2)


BAD_FRAMES = [
    (np.zeros((4, 4, 3), np.float32), r"uint8 \(H, W, 3\).*got float32"),
    (np.zeros((3, 4, 4), np.uint8), r"got uint8 \(3, 4, 4\)"),
    (np.zeros((0, 4, 3), np.uint8), r"got uint8 \(0, 4, 3\)"),
    ("frame.png", "got str"),
]


@pytest.mark.parametrize(("bad", "message"), BAD_FRAMES)
def test_bad_frame_is_refused_before_the_engine_is_asked(bad, message):
    engine = ScriptedEngine([])
    critic = VLACCritic(engine)
    for call in (
        lambda: critic.success_prob([frame(1), bad], [TASK] * 2),
        lambda: critic.progress([frame(1)], [bad], [TASK]),
        lambda: critic.value([frame(1), bad], TASK),
        lambda: critic.progress([frame(1)], [frame(1)], [TASK], [frame(1), bad]),
        lambda: critic.progress([frame(1)], [frame(1)], [TASK], starts=[bad]),
        lambda: VLACCritic(engine, references=[bad, frame(1)]),
        lambda: VLACCritic(engine, goal_image=bad),
    ):
        with pytest.raises(ConfigError, match=message):
            call()
    assert engine.batches == []


@pytest.mark.parametrize("task", ["", "look <image>", "a <|im_end|> b", "x" * 10_000])
def test_bad_task_is_refused_before_the_engine_is_asked(task):
    engine = ScriptedEngine([])
    critic = VLACCritic(engine)
    no_text = VLACCritic(engine, VLACConfig(goal_needs_task=False), goal_image=frame(9))
    for call in (
        lambda: critic.success_prob([frame(1)], [task]),
        lambda: no_text.success_prob([frame(1)], [task]),
        lambda: critic.progress([frame(1)], [frame(2)], [task]),
        lambda: critic.value([frame(1), frame(2)], task),
        lambda: critic.value([frame(1)], task),
        lambda: critic.value([], task),
    ):
        with pytest.raises(ConfigError, match="Expected task"):
            call()
    assert engine.batches == []


def test_lengths_that_differ_are_refused():
    critic = VLACCritic(ScriptedEngine([]))
    with pytest.raises(ConfigError, match="frames 2, tasks 1"):
        critic.success_prob([frame(1)] * 2, [TASK])
    with pytest.raises(ConfigError, match="before 1, after 2"):
        critic.progress([frame(1)], [frame(1)] * 2, [TASK])
    with pytest.raises(ConfigError, match="sequence of texts"):
        critic.success_prob([frame(1)], TASK)


@pytest.mark.parametrize("count", [0, 1, 12])
def test_references_out_of_range_are_refused(count):
    with pytest.raises(ConfigError, match=f"2 to 11 reference frames, got {count}.*sample_references"):
        VLACCritic(ScriptedEngine([]), references=[frame(1)] * count)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"reading": "poor"}, "Unknown reading 'poor'. Available: exact, plain, rich"),
        ({"value_rule": "mix"}, "Unknown value_rule 'mix'.*mixed"),
        ({"out_of_scale": "ignore"}, "Unknown out_of_scale 'ignore'"),
        ({"max_thinking_tokens": 0}, "max_thinking_tokens >= 1, got 0"),
    ],
)
def test_bad_config_is_refused(option, message):
    with pytest.raises(ConfigError, match=message):
        VLACConfig(**option)


def test_frames_are_not_changed_and_references_are_copied():
    shown = [frame(100), frame(101)]
    frames = [frame(0), frame(1)]
    engine = ScriptedEngine(["0"])
    critic = VLACCritic(engine, references=shown)
    shown[0][:] = 5
    critic.value(frames, TASK)
    assert levels(engine.requests[0]) == [100, 101, 0, 0, 1]
    assert [int(one.max()) for one in frames] == [0, 1]


def test_describe_close_sleep_and_wake_reach_the_engine():
    engine = ScriptedEngine([])
    critic = VLACCritic(engine, references=[frame(1), frame(2)])
    info = critic.describe()
    assert (info.name, info.model, info.device) == ("scripted", "none", "cpu")
    assert info.prompt_version == "vlac-v3"
    assert info.details == {
        "reading": "rich",
        "thinking": False,
        "value_rule": "simple",
        "unfinished_value_limit": None,
        "num_references": 2,
        "has_goal_image": False,
        "out_of_scale_replies": 0,
    }
    critic.sleep()
    assert engine.is_asleep
    critic.wake()
    assert not engine.is_asleep
    critic.close()
    critic.close()
    assert engine.is_closed


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (
            "sleep",
            r"Expected the critic scripted \(none, cpu\) to have its weights on the host, got RuntimeError: no room\. "
            r"It answers nothing.* call sleep\(\) again, or wake\(\)",
        ),
        (
            "wake",
            r"Expected the critic scripted \(none, cpu\) to have its weights on the device, got RuntimeError: no room"
            r"\. It stays asleep\. Free memory of the device.* call wake\(\) again",
        ),
    ],
)
def test_a_model_that_could_not_be_moved_says_where_it_is_and_what_to_do(method, message):
    engine = ScriptedEngine([])
    critic = VLACCritic(engine)

    def fail():
        raise RuntimeError("no room.\nIf reserved but unallocated memory is large try …")

    setattr(engine, method, fail)
    with pytest.raises(CriticServerError, match=message) as raised:
        getattr(critic, method)()
    assert isinstance(raised.value.__cause__, RuntimeError)


def fingerprint(engine=None, config=None, **pictures):
    return VLACCritic(engine or ScriptedEngine([]), config, **pictures).describe().fingerprint


def test_a_fingerprint_tells_reading_pictures_and_model_apart():
    other = ScriptedEngine([])
    other.describe = lambda: {"name": "scripted", "model": "other"}
    digested = ScriptedEngine([])
    digested.describe = lambda: {"name": "scripted", "model": "none", "weights_digest": "ab"}
    shown = [frame(1), frame(2)]
    different = [
        fingerprint(),
        fingerprint(config=VLACConfig(reading="exact")),
        fingerprint(config=VLACConfig(value_rule="hyperbolic")),
        fingerprint(config=VLACConfig(unfinished_value_limit=0.5)),
        fingerprint(references=shown),
        fingerprint(references=shown[::-1]),
        fingerprint(goal_image=frame(1)),
        fingerprint(other),
        fingerprint(digested),
    ]
    assert len(set(different)) == len(different)


def test_a_fingerprint_is_the_same_on_another_machine_in_another_folder():
    moved = ScriptedEngine([])
    moved.describe = lambda: {"name": "a", "model": "/there", "device": "cuda", "weights_digest": "ab"}
    here = ScriptedEngine([])
    here.describe = lambda: {"name": "b", "model": "/here", "dtype": "float32", "weights_digest": "ab"}
    assert fingerprint(moved) == fingerprint(here, VLACConfig(out_of_scale="clip"))


def test_a_critic_says_which_pictures_it_shows_on_its_own():
    pictures = {"references": [frame(1), frame(2)], "goal_image": frame(3)}
    assert VLACCritic(ScriptedEngine([])).describe().inputs == ()
    assert VLACCritic(ScriptedEngine([]), **pictures).describe().inputs == ("references", "goal_image")


def test_pairs_of_an_episode():
    assert episode_pairs(12, 5) == ((0, 5), (5, 10))
    assert episode_pairs(5, 3, overlapping=True) == ((0, 3), (1, 4))
    assert episode_pairs(3, 3) == ()
    assert episode_pairs(0) == ()
    with pytest.raises(ConfigError, match="stride_steps >= 1, got 0"):
        episode_pairs(3, 0)


def test_reverse_shows_the_later_frame_first_and_negates():
    engine = ScriptedEngine(["-40"])
    judged = VLACCritic(engine).judge_episode([frame(1), frame(2)], TASK, reverse=True)
    assert levels(engine.requests[0]) == [2, 1]
    assert judged.progress.tolist() == [0.4]


def test_overlapping_pairs_count_a_stride_each():
    judged = VLACCritic(ScriptedEngine(["+30", "+60"])).judge_episode(
        [frame(i) for i in range(5)], TASK, stride_steps=3, overlapping=True
    )
    assert judged.pairs == ((0, 3), (1, 4))
    np.testing.assert_allclose(judged.progress, [0.1, 0.2], atol=1e-15)
    np.testing.assert_allclose(judged.values, [0.0, 0.1, 0.28], atol=1e-15)  # 0.1 + 0.9 * 0.2


def test_exhausted_script_says_so():
    with pytest.raises(CriticServerError, match="The script has 1 replies and one more was asked for"):
        VLACCritic(ScriptedEngine(["1"])).success_prob([frame(1)] * 2, [TASK] * 2)


def test_script_can_be_a_function_and_not_a_text():
    engine = ScriptedEngine(lambda request: EngineReply("1", scripted_reply("1").tokens))
    assert VLACCritic(engine).success_prob([frame(1)] * 3, [TASK] * 3).tolist() == [1.0] * 3
    with pytest.raises(ConfigError, match="a list of replies or a function, got the text '101'"):
        ScriptedEngine("101")


def test_unfinished_value_limit_makes_the_value_what_is_expected_given_done():
    half = scripted_reply("0", {"1": 0.5, "0": 0.5})
    engine = ScriptedEngine(["+50", "+60", "+10", "0", half, "1"])
    critic = VLACCritic(engine, VLACConfig(reading="exact", unfinished_value_limit=0.6))
    values = critic.value([frame(level) for level in range(4)], TASK)
    # From pairs 0.5, 0.8, 0.82. Then 0.5; 0.5 + 0.5 * 0.6; 1.
    np.testing.assert_allclose(values, [0.0, 0.5, 0.8, 1.0], rtol=1e-6)
    assert [levels(request) for request in engine.requests] == [[0, 1], [1, 2], [2, 3], [1], [2], [3]]


@pytest.mark.parametrize("limit", [0.0, 1.1])
def test_unfinished_value_limit_out_of_range_is_refused(limit):
    with pytest.raises(ConfigError, match=r"unfinished_value_limit in \(0, 1\] or None"):
        VLACConfig(unfinished_value_limit=limit)
