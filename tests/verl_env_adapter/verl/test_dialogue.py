"""Token rows of an episode, against a loop with verl 0.9.1's methods and one token per letter."""

import asyncio
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from verl_env_adapter.common.env_report import EnvReport
from verl_env_adapter.verl.action_text import DecodedChunk
from verl_env_adapter.verl.dialogue import Dialogue
from verl_env_adapter.verl.episode import parse_policy
from vlac_gym.errors import AdapterContractError, ConfigError


class Letters:
    """An `ActionTokenizer` whose format is of no interest."""

    def instructions(self) -> str:
        return "i"

    def decode(self, text: str) -> DecodedChunk:
        return DecodedChunk(np.zeros((1, 1), np.float32), False)

    def encode(self, actions: Any) -> str:
        return ""


class Loop:
    """verl's tokens: a question is its text's letters after 'q', a reply is followed by nothing."""

    def __init__(self, replies: list[str], response_length: int = 100, log_probs: bool = True) -> None:
        self.rollout_config = SimpleNamespace(response_length=response_length)
        self.tokenizer = SimpleNamespace(decode=lambda ids, skip_special_tokens: "".join(map(chr, ids)))
        self.server_manager = self
        self.questions: list[dict[str, Any]] = []
        self._replies = iter(replies)
        self._has_log_probs = log_probs

    def _assert_mm_supported(self, has_multi_modal: bool) -> None:
        self.has_multi_modal = has_multi_modal

    def _get_mm_processor_kwargs(self) -> dict[str, Any]:
        return {}

    async def ct_build_initial_tokens(self, messages, images=None):
        return tokens(text_of(messages[-1]))

    async def ct_merge_context_msg(self, before, messages, ids, mask, log_probs=None):
        assert messages[: len(before)] == before
        new = tokens(text_of(messages[-1]))
        zeros = None if log_probs is None else [*log_probs, *[0.0] * len(new)]
        return SimpleNamespace(token_ids=ids + new), mask + [0] * len(new), zeros

    async def ct_merge_assistant_token(self, ids, new, mask, log_probs=None, assistant_logprobs=None):
        joined = None if log_probs is None else [*log_probs, *assistant_logprobs]
        return SimpleNamespace(token_ids=ids + new), mask + [1] * len(new), joined

    async def generate(self, request_id, **question):
        self.questions.append({"request_id": request_id, **question})
        reply = next(self._replies)
        version = len(self.questions)
        return SimpleNamespace(
            token_ids=tokens(reply),
            log_probs=[-float(version)] * len(reply) if self._has_log_probs else None,
            num_preempted=None,
            routed_experts=None,
            extra_fields={"min_global_steps": version, "max_global_steps": version},
        )


def tokens(text: str) -> list[int]:
    return [ord(letter) for letter in text]


def text_of(message: dict[str, Any]) -> str:
    content = message["content"]
    return content if isinstance(content, str) else content[-1]["text"]


def report(task: str, pixel: int = 0) -> EnvReport:
    frame = np.full((2, 2, 3), pixel, np.uint8)
    frame[:, 0] = 0
    return EnvReport(
        observation={"agentview_image": frame, "state": np.zeros(1, np.float32)},
        rewards=np.zeros(0, np.float32),
        terminated=False,
        truncated=False,
        sim_success=None,
        critic_done=False,
        critic_failed=False,
        value=None,
        episode_steps=0,
        episode_return=0.0,
        task=task,
        info={},
    )


def dialogue(loop: Loop, *, is_conversation: bool, **policy: Any) -> Dialogue:
    return Dialogue(
        loop,
        policy=parse_policy({"prompt": "q{task}", **policy}),
        actions=Letters(),
        sampling_params={"temperature": 1.0},
        request_id="r",
        priority=3,
        is_conversation=is_conversation,
    )


def ask(talk: Dialogue, *reports: EnvReport) -> list[str | None]:
    async def all_of_them() -> list[str | None]:
        return [await talk.ask(item) for item in reports]

    return asyncio.run(all_of_them())


def test_each_chunk_is_a_row_of_its_own():
    loop = Loop(["ab", "c"])
    talk = dialogue(loop, is_conversation=False)
    assert ask(talk, report("x", 7), report("y", 9)) == ["ab", "c"]
    first, second = talk.rows()
    assert (first.prompt_ids, first.response_ids, first.response_mask) == (tokens("qx"), tokens("ab"), [1, 1])
    assert (second.prompt_ids, second.response_ids, second.response_mask) == (tokens("qy"), tokens("c"), [1])
    assert (first.log_probs, second.log_probs) == ([-1.0, -1.0], [-2.0])
    assert [row.images[0].getpixel((1, 0)) for row in (first, second)] == [(7, 7, 7), (9, 9, 9)]
    assert (first.num_turns, first.num_preempted) == (2, -1)
    assert second.extra_fields == {"min_global_steps": 2, "max_global_steps": 2}


def test_server_gets_the_question_as_verl_sends_it():
    loop = Loop(["a"])
    ask(dialogue(loop, is_conversation=False), report("x"))
    (question,) = loop.questions
    pictures = question.pop("image_data")
    assert [picture.size for picture in pictures] == [(2, 2)]
    assert question == {
        "request_id": "r",
        "prompt_ids": tokens("qx"),
        "sampling_params": {"temperature": 1.0},
        "mm_processor_kwargs": {},
        "priority": 3,
    }
    assert loop.has_multi_modal is True


def test_conversation_is_one_row_that_trains_on_replies():
    loop = Loop(["ab", "c"])
    talk = dialogue(loop, is_conversation=True)
    assert ask(talk, report("x", 7), report("y", 9)) == ["ab", "c"]
    (row,) = talk.rows()
    assert row.prompt_ids == tokens("qx")
    assert row.response_ids == tokens("abqyc")
    assert row.response_mask == [1, 1, 0, 0, 1]
    assert row.log_probs == [-1.0, -1.0, 0.0, 0.0, -2.0]
    assert loop.questions[1]["prompt_ids"] == tokens("qxabqy")
    assert [picture.getpixel((1, 0))[0] for picture in row.images] == [7, 9]
    assert row.num_turns == 4
    assert row.extra_fields == {"min_global_steps": 1, "max_global_steps": 2}


def test_conversation_without_room_for_another_reply_ends_and_keeps_what_was_said():
    loop = Loop(["abc", "d"], response_length=5)
    talk = dialogue(loop, is_conversation=True)
    assert ask(talk, report("x"), report("y")) == ["abc", None]
    (row,) = talk.rows()
    assert row.response_ids == tokens("abc")
    assert len(row.images) == 1
    assert len(loop.questions) == 1


@pytest.mark.parametrize("is_conversation", [False, True])
def test_server_without_log_probs_gives_none(is_conversation):
    talk = dialogue(Loop(["a", "b"], log_probs=False), is_conversation=is_conversation)
    ask(talk, report("x"), report("y"))
    assert all(row.log_probs is None for row in talk.rows())


def test_reply_without_a_token_is_the_servers_fault():
    with pytest.raises(AdapterContractError, match="without a single token"):
        ask(dialogue(Loop([""]), is_conversation=False), report("x"))


def test_pictures_turn_into_the_policys_convention():
    talk = dialogue(Loop(["a"]), is_conversation=False, image_convention="raw_rotated_180")
    ask(talk, report("x", 7))
    (picture,) = talk.rows()[0].images
    assert [picture.getpixel((column, 0))[0] for column in (0, 1)] == [7, 0]


def test_text_policy_sees_no_picture():
    loop = Loop(["a"])
    talk = dialogue(loop, is_conversation=False, images=[])
    ask(talk, report("x"))
    assert talk.rows()[0].images == []
    assert loop.questions[0]["image_data"] is None
    assert loop.has_multi_modal is False


def test_picture_that_the_env_does_not_have_is_named():
    talk = dialogue(Loop(["a"]), is_conversation=False, images=["wrist_image"])
    with pytest.raises(ConfigError, match=r"policy\.images among .*got \['wrist_image'\]"):
        ask(talk, report("x"))
