import json

import original_checkpoint as original
import pytest

from vlac_gym.critic.engines.base import EngineRequest
from vlac_gym.critic.engines.chat_prompts import PromptEncoder
from vlac_gym.critic.vlac.convert_tokenizer import convert_tokenizer
from vlac_gym.errors import ConfigError

pytest.importorskip("transformers")
sentencepiece = pytest.importorskip("sentencepiece")

TEXTS = (
    "put the bowl on the plate",
    "  two  spaces\n\nand 1234 %\ttab",
    "Grüße, 拿起碗 🥣",
    "+12 -7 100 199",
)


@pytest.fixture(scope="module", params=[True, False], ids=["dummy prefix", "no prefix"])
def model(request):
    return original.train_sentencepiece(add_dummy_prefix=request.param)


@pytest.fixture
def checkpoint(tmp_path, model):
    original.write_original(tmp_path, model)
    return tmp_path


def vocab_size(model):
    return original.num_pieces(model) + len(original.SPECIAL)


@pytest.mark.parametrize("text", TEXTS)
def test_fast_tokenizer_gives_the_ids_of_sentencepiece(checkpoint, model, text):
    expected = sentencepiece.SentencePieceProcessor(model_proto=model).encode(text)
    tokenizer = convert_tokenizer(checkpoint, vocab_size(model)).tokenizer
    assert tokenizer.encode(text, add_special_tokens=False) == expected
    assert tokenizer.decode(expected) == text


def test_special_tokens_keep_their_ids_and_prompts_begin_with_the_start_token(checkpoint, model):
    pieces = original.num_pieces(model)
    tokenizer = convert_tokenizer(checkpoint, vocab_size(model)).tokenizer
    assert tokenizer.encode("<|im_end|><img></img>") == [1, pieces, pieces + 2, pieces + 3]
    assert tokenizer.context_image_token_id == pieces + 4
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "7"}]}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text == "<s><|im_start|>user\n<IMG_CONTEXT>\n7<|im_end|>\n<|im_start|>assistant\n"


def test_whole_numbers_stay_single_tokens(checkpoint, model):
    converted = convert_tokenizer(checkpoint, vocab_size(model))
    assert converted.single_token_numbers == 200
    for number in ("0", "42", "199"):
        token_id = converted.tokenizer.convert_tokens_to_ids(number)
        assert converted.tokenizer.decode([token_id]) == number


def test_converted_tokenizer_serves_the_prompt_encoder(checkpoint, model):
    converted = convert_tokenizer(checkpoint, vocab_size(model))
    encoder = PromptEncoder(converted.tokenizer, converted.id_of("<IMG_CONTEXT>"), 1, vocab_size(model))
    ids = encoder.encode(EngineRequest("", "7", ())).ids
    assert [int(i) for i in ids[:2]] == [1, converted.id_of("<|im_start|>")]


def test_a_token_that_no_prompt_uses_stands_for_videos(checkpoint, model):
    tokenizer = convert_tokenizer(checkpoint, vocab_size(model)).tokenizer
    assert tokenizer.video_token == "<quad>"
    assert tokenizer.context_image_token == "<IMG_CONTEXT>"


def test_a_fast_tokenizer_is_taken_as_it_is(checkpoint, model, tmp_path):
    first = convert_tokenizer(checkpoint, vocab_size(model)).tokenizer
    second = tmp_path / "second"
    first.save_pretrained(second)
    (second / "tokenizer_config.json").write_text(json.dumps(original.tokenizer_config(0)))
    again = convert_tokenizer(second, vocab_size(model))
    assert again.source.name == "tokenizer.json"
    assert all(again.tokenizer.encode(text) == first.encode(text) for text in TEXTS)


def test_added_tokens_are_read_from_the_older_file_too(checkpoint, model):
    pieces = original.num_pieces(model)
    (checkpoint / "tokenizer_config.json").unlink()
    (checkpoint / "added_tokens.json").write_text(
        json.dumps({text: pieces + i for i, text in enumerate(original.SPECIAL)})
    )
    assert convert_tokenizer(checkpoint, vocab_size(model)).id_of("<img>") == pieces + 2


def test_a_tokenizer_without_chat_and_image_tokens_is_refused(checkpoint, model):
    (checkpoint / "tokenizer_config.json").unlink()
    with pytest.raises(ConfigError, match=r"<\|im_start\|>, .* missing"):
        convert_tokenizer(checkpoint, vocab_size(model))


def test_ids_beyond_the_embedding_are_refused(checkpoint, model):
    with pytest.raises(ConfigError, match="below the embedding's"):
        convert_tokenizer(checkpoint, vocab_size(model) - 1)


def test_a_gap_in_the_ids_is_refused(checkpoint, model):
    config = original.tokenizer_config(original.num_pieces(model) + 1)
    (checkpoint / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="leave a gap"):
        convert_tokenizer(checkpoint, vocab_size(model) + 1)


@pytest.mark.parametrize("name", ["tokenizer.model", "tokenizer.json"])
def test_a_file_that_is_no_tokenizer_is_refused(checkpoint, model, name):
    (checkpoint / name).write_bytes(b"\x0fnothing of the kind")
    with pytest.raises(ConfigError, match=name):
        convert_tokenizer(checkpoint, vocab_size(model))


def test_a_checkpoint_without_tokenizer_is_refused(checkpoint, model):
    (checkpoint / "tokenizer.model").unlink()
    with pytest.raises(ConfigError, match=r"Expected tokenizer.model or tokenizer.json"):
        convert_tokenizer(checkpoint, vocab_size(model))
