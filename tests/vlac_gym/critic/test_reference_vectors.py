"""Our critic beside recordings of the VLAC reference: same prompts, same frame order, same numbers.

The recordings are in `tests/data/vlac_reference*.json`, or in the file (`.json` or `.json.gz`) that the
environment variable `VLAC_REFERENCE_VECTORS` names. A case of an unknown kind, or with an unknown argument,
fails: what is not run is not proven.
"""

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlac_gym.critic.engines.base import EngineReply, EngineRequest, EngineToken, TokenCandidate
from vlac_gym.critic.engines.scripted import ScriptedEngine
from vlac_gym.critic.vlac.critic import VLACConfig, VLACCritic
from vlac_gym.critic.vlac.prompts import sample_references
from vlac_gym.metrics.progress import accumulate_values, negative_rate, value_order_correlation

PRECISION = 1e-9
VARIABLE = "VLAC_REFERENCE_VECTORS"
BUNDLED = sorted((Path(__file__).parents[2] / "data").glob("vlac_reference*.json"))

RULES = {"True": "simple", "False": "hyperbolic", "mix_f": "mixed"}
"""The reference's names of the value rules (`True`, `False`, `'mix_f'`) -> ours."""

FIRST_REFERENCE_ID = 100
"""Recorded frame numbers: 0… are the trajectory's, 100… the reference frames'."""

GOAL_NUMBER = 65535
"""Stands for whatever number a recording gives its goal image."""

CASE_KEYS = {
    "trajectory_critic": {"num_frames", "num_reference_frames", "think", "critic", "value"},
    "trajectory_done": {"num_frames", "goal_image", "done"},
}
ARGS = {
    "trajectory_critic": {
        "task",
        "batch_num",
        "skip",
        "rich",
        "reverse_eval",
        "frame_skip",
        "value_simple",
        "ref_num",
    },
    "trajectory_done": {"task", "batch_num", "rich", "threshold", "skip"},
}


def load_cases(path: Path) -> list[dict[str, Any]]:
    data = path.read_bytes()
    cases = json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)["cases"]
    assert cases, f"{path} holds no case"
    return list(cases)


def frame(number: int) -> np.ndarray:
    """A picture that is unlike any other number's."""
    return np.full((2, 2, 3), (number // 256, number % 256, 7), np.uint8)


def number_of(picture: np.ndarray) -> int:
    return int(picture[0, 0, 0]) * 256 + int(picture[0, 0, 1])


def recorded_reply(tokens: list[dict[str, Any]]) -> EngineReply:
    assert all(token.keys() == {"token", "logprob", "top_logprobs"} for token in tokens)
    text = "".join(token["token"] for token in tokens if token["token"] != "<|im_end|>")
    return EngineReply(
        text,
        tuple(
            EngineToken(
                token["token"],
                token["logprob"],
                tuple(TokenCandidate(one["token"], one["logprob"]) for one in token["top_logprobs"]),
            )
            for token in tokens
        ),
    )


def engine_of(case: dict[str, Any]) -> ScriptedEngine:
    return ScriptedEngine([recorded_reply(tokens) for tokens in case["replies"]])


def assert_same_requests(case: dict[str, Any], requests: list[EngineRequest], goal_id: Any = None) -> None:
    recorded = [request for batch in case["requests"] for request in batch]
    assert all(one.keys() == {"prompt", "frames"} for one in recorded)
    assert [one.prompt for one in requests] == [one["prompt"] for one in recorded]
    shown = [[number_of(picture) for picture in one.frames] for one in requests]
    shown = [[goal_id if number == GOAL_NUMBER else number for number in numbers] for numbers in shown]
    assert shown == [one["frames"] for one in recorded]
    assert all(one.system == case["system_prompt"] for one in requests)


def assert_known_keys(case: dict[str, Any]) -> None:
    known = CASE_KEYS[case["fn"]] | {"fn", "args", "system_prompt", "requests", "replies"}
    assert case.keys() == known, f"unknown or missing: {case.keys() ^ known}"
    assert case["args"].keys() == ARGS[case["fn"]], case["args"].keys() ^ ARGS[case["fn"]]


def check_trajectory_critic(case: dict[str, Any]) -> None:
    assert_known_keys(case)
    args = case["args"]
    references = None
    if case["num_reference_frames"]:
        shown = [frame(FIRST_REFERENCE_ID + i) for i in range(case["num_reference_frames"])]
        references = sample_references(shown, args["ref_num"])
    engine = engine_of(case)
    config = VLACConfig(
        reading="rich" if args["rich"] else "plain",
        thinking=case["think"],
        value_rule=RULES[str(args["value_simple"])],
    )
    judged = VLACCritic(engine, config, references=references).judge_episode(
        [frame(i) for i in range(case["num_frames"])],
        args["task"],
        stride_steps=args["skip"],
        overlapping=not args["frame_skip"],
        reverse=args["reverse_eval"],
    )
    assert_same_requests(case, engine.requests)
    np.testing.assert_allclose(
        judged.progress, np.array(case["critic"]) / 100, rtol=PRECISION, atol=PRECISION
    )
    np.testing.assert_allclose(judged.values, np.array(case["value"]) / 100, rtol=PRECISION, atol=PRECISION)


def check_trajectory_done(case: dict[str, Any]) -> None:
    assert_known_keys(case)
    args = case["args"]
    goal_id = goal_image = None
    if case["goal_image"]:
        goal_id, goal_image = case["requests"][0][0]["frames"][0], frame(GOAL_NUMBER)
        assert goal_id not in range(case["num_frames"])
    engine = engine_of(case)
    config = VLACConfig(reading="rich" if args["rich"] else "plain", goal_needs_task=args["task"] is not None)
    frames = [frame(i) for i in range(0, case["num_frames"], args["skip"])]
    critic = VLACCritic(engine, config, goal_image=goal_image)
    done = critic.judge_done(frames, [args["task"] or "unused"] * len(frames))
    assert_same_requests(case, engine.requests, goal_id)
    kept = np.where(done > args["threshold"], done, 0.0)
    np.testing.assert_allclose(kept, case["done"], rtol=PRECISION, atol=PRECISION)


def check_critic_to_value(case: dict[str, Any]) -> None:
    assert case.keys() == {"fn", "critic", "value"}
    assert case["value"].keys() == RULES.keys()
    for name, expected in case["value"].items():
        values = accumulate_values(np.array(case["critic"]) / 100, RULES[name])
        np.testing.assert_allclose(values, np.array(expected) / 100, rtol=PRECISION, atol=PRECISION)


def check_trajectory_quality(case: dict[str, Any]) -> None:
    assert case.keys() == {"fn", "value", "critic", "voc", "negative_rate"}
    voc = value_order_correlation(np.array(case["value"]) / 100)
    if case["voc"] is None:
        assert voc is None
    else:
        assert voc == pytest.approx(case["voc"], abs=PRECISION)
    assert negative_rate(np.array(case["critic"]) / 100) == pytest.approx(
        case["negative_rate"], abs=PRECISION
    )


CHECKS: dict[str, Callable[[dict[str, Any]], None]] = {
    "trajectory_critic": check_trajectory_critic,
    "trajectory_done": check_trajectory_done,
    "critic_to_value": check_critic_to_value,
    "trajectory_quality": check_trajectory_quality,
}


def check_case(case: dict[str, Any]) -> None:
    assert case.get("fn") in CHECKS, f"no check for a case of kind {case.get('fn')!r}"
    CHECKS[case["fn"]](case)


NAMED = os.environ.get(VARIABLE)
CASES = [case for path in ([Path(NAMED)] if NAMED else BUNDLED) for case in load_cases(path)]


@pytest.mark.parametrize("case", CASES, ids=[f"{i}-{case.get('fn')}" for i, case in enumerate(CASES)])
def test_recorded_case_is_reproduced(case):
    check_case(case)


def test_case_of_unknown_kind_fails():
    with pytest.raises(AssertionError, match="no check for a case of kind 'trajectory_guess'"):
        check_case({"fn": "trajectory_guess"})


@pytest.fixture
def good_case():
    return next(case for case in load_cases(BUNDLED[0]) if case["fn"] == "trajectory_critic")


def test_bundled_recordings_hold_every_kind():
    cases = [case for path in BUNDLED for case in load_cases(path)]
    done = [
        (case["goal_image"], case["args"]["task"] is None)
        for case in cases
        if case["fn"] == "trajectory_done"
    ]
    pairs = [
        (case["num_reference_frames"] > 0, case["think"])
        for case in cases
        if case["fn"] == "trajectory_critic"
    ]
    assert {case["fn"] for case in cases} == CHECKS.keys()
    assert set(done) == {(False, False), (True, False), (True, True)}
    assert set(pairs) == {(False, False), (True, False), (False, True), (True, True)}


def test_case_with_unknown_argument_fails(good_case):
    with pytest.raises(AssertionError, match="bias"):
        check_case({**good_case, "args": {**good_case["args"], "bias": 3}})


@pytest.mark.parametrize(
    "damage",
    [
        lambda case: case["requests"][0][0].update(prompt=case["requests"][0][0]["prompt"] + " "),
        lambda case: case["requests"][0][0]["frames"].reverse(),
        lambda case: case["critic"].__setitem__(0, case["critic"][0] + 1e-6),
        lambda case: case["value"].__setitem__(-1, case["value"][-1] + 1e-6),
        lambda case: case.update(system_prompt="You are a robot."),
    ],
    ids=["prompt", "frame order", "progress", "value", "system prompt"],
)
def test_damaged_recording_is_noticed(damage, good_case):
    check_case(good_case)
    damage(good_case)
    with pytest.raises(AssertionError):
        check_case(good_case)
