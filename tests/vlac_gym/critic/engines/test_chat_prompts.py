import numpy as np
import pytest

from vlac_gym.critic.engines.base import EngineRequest
from vlac_gym.errors import ConfigError

pytest.importorskip("transformers")

from vlac_gym.critic.engines.chat_prompts import PromptEncoder
from vlac_gym.critic.vlac.tiny_checkpoint import train_tokenizer

FRAME = np.zeros((4, 4, 3), np.uint8)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer()


@pytest.fixture(scope="module")
def encoder(tokenizer):
    return PromptEncoder(tokenizer, tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"), 2, 2000)


def decoded(encoder, tokenizer, **fields):
    request = EngineRequest(**{"system": "", "prompt": "", "frames": ()} | fields)
    return tokenizer.decode(encoder.encode(request).ids)


def test_a_prompt_without_marks_has_all_frames_before_the_text(encoder, tokenizer):
    text = decoded(encoder, tokenizer, system="Be brief.", prompt="Done?", frames=(FRAME, FRAME))
    image = "<img><IMG_CONTEXT><IMG_CONTEXT></img>\n"
    assert text == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        f"<|im_start|>user\n{image}{image}Done?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_frames_stand_at_their_marks_and_an_empty_system_prompt_leaves_no_block(encoder, tokenizer):
    text = decoded(encoder, tokenizer, prompt="A: <image>\nB: <image>!", frames=(FRAME, FRAME))
    image = "<img><IMG_CONTEXT><IMG_CONTEXT></img>\n"
    assert text == f"<|im_start|>user\nA: {image}\nB: {image}!<|im_end|>\n<|im_start|>assistant\n"


def test_image_starts_point_at_the_image_tokens(encoder, tokenizer):
    prompt = encoder.encode(EngineRequest("s", "A: <image> B: <image>", (FRAME, FRAME)))
    image_token = tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>")
    places = [start + i for start in prompt.image_starts for i in range(2)]
    assert np.flatnonzero(prompt.ids == image_token).tolist() == places


def test_reply_tokens_are_whole_numbers_signs_and_the_end_of_a_turn(encoder, tokenizer):
    found = encoder.reply_tokens
    assert [encoder.token_text(i) for i in found.numbers] == tokenizer.batch_decode(
        [[i] for i in found.numbers]
    )
    assert sorted(int(encoder.token_text(i)) for i in found.numbers) == list(range(1000))
    assert sorted(encoder.token_text(i) for i in found.signs) == ["+", "-"]
    assert found.stops == {tokenizer.convert_tokens_to_ids("<|im_end|>")}


@pytest.mark.parametrize("mark", ["<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>"])
@pytest.mark.parametrize("field", ["system", "prompt"])
def test_chat_and_image_tokens_in_a_text_are_refused(encoder, field, mark):
    request = EngineRequest(**{"system": "", "prompt": "", "frames": ()} | {field: f"a {mark} b"})
    with pytest.raises(ConfigError, match="without chat or image tokens"):
        encoder.encode(request)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt": "<image>", "frames": ()}, "got 1 marks for 0 frames"),
        ({"prompt": "<image>", "frames": (FRAME, FRAME)}, "got 1 marks for 2 frames"),
        ({"system": "<image>", "prompt": "", "frames": (FRAME,)}, "one <image> mark"),
        ({"prompt": "a", "frames": (), "max_new_tokens": 0}, "max_new_tokens >= 1, got 0"),
        ({"prompt": "a", "frames": (FRAME,), "shared_frames": 2}, "shared_frames from 0 to 1"),
        ({"prompt": "a", "frames": (FRAME.astype(np.float32),)}, r"frames\[0\] as uint8"),
        ({"prompt": "a", "frames": (FRAME, FRAME[:, :, 0])}, r"frames\[1\] as uint8 \(H, W, 3\)"),
        ({"prompt": "a", "frames": (np.zeros((0, 4, 3), np.uint8),)}, "H, W >= 1"),
    ],
)
def test_malformed_requests_are_refused(encoder, fields, message):
    with pytest.raises(ConfigError, match=message):
        encoder.encode(EngineRequest(**{"system": "", "prompt": ""} | fields))


def test_a_tokenizer_without_the_image_tokens_is_refused(tokenizer):
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    plain = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), eos_token="</s>")
    with pytest.raises(ConfigError, match=r"Expected single tokens for '<\|im_start\|>'"):
        PromptEncoder(plain, 5, 2, 2000)


def test_a_tokenizer_that_splits_numbers_is_refused():
    from vlac_gym.critic.vlac.tiny_checkpoint import train_tokenizer

    with pytest.raises(ConfigError, match="Expected single tokens for '50', '51'"):
        PromptEncoder(train_tokenizer(number_limit=50), 5, 2, 2000)


def test_a_vocabulary_larger_than_the_embedding_is_refused(tokenizer):
    with pytest.raises(
        ConfigError, match=f"at most 100 tokens .rows of the embedding., got {len(tokenizer)}"
    ):
        PromptEncoder(tokenizer, 5, 2, 100)


def test_an_image_token_other_than_the_configs_is_refused(tokenizer):
    with pytest.raises(ConfigError, match=r"Expected image token id 77 of config\.json"):
        PromptEncoder(tokenizer, 77, 2, 2000)
