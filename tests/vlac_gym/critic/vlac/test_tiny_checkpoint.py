import json

import numpy as np
import pytest

from vlac_gym.cli import main
from vlac_gym.critic.vlac.tiny_checkpoint import ModelSizes, make_tiny_checkpoint, train_tokenizer
from vlac_gym.errors import ConfigError

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer()


def test_every_number_below_1000_and_each_sign_is_one_token(tokenizer):
    for text in [*map(str, range(1000)), "+", "-"]:
        assert tokenizer.tokenize(text) == [text]


def test_a_sign_never_merges_with_the_number_behind_it(tokenizer):
    assert tokenizer.tokenize("+12") == ["+", "12"]
    assert tokenizer.tokenize("-100") == ["-", "100"]


@pytest.mark.parametrize(
    "text", ["Image-1: ", "  two  spaces\n\n", "拿起碗 🥣", "1234 %", "<task> a </task> <score>"]
)
def test_any_text_survives_encoding_and_decoding(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_chat_and_image_marks_are_single_tokens_with_names_the_processor_looks_up(tokenizer):
    for mark in ("<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>"):
        assert len(tokenizer.encode(mark)) == 1
    assert tokenizer.start_image_token == "<img>"
    assert tokenizer.end_image_token == "</img>"
    assert tokenizer.context_image_token == "<IMG_CONTEXT>"


def test_a_vocabulary_without_room_for_the_numbers_is_refused():
    with pytest.raises(ConfigError, match="room for the numbers below 1000, got 500"):
        train_tokenizer(vocab_size=500)


def test_same_seed_writes_the_same_bytes_and_another_seed_other_weights(tmp_path):
    first, again, other = (
        make_tiny_checkpoint(tmp_path / name, seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    names = sorted(file.name for file in first.iterdir())
    assert {"config.json", "model.safetensors", "tokenizer.json", "preprocessor_config.json"} <= set(names)
    assert [(first / n).read_bytes() == (again / n).read_bytes() for n in names] == [True] * len(names)
    assert (first / "model.safetensors").read_bytes() != (other / "model.safetensors").read_bytes()


def test_the_global_random_state_is_left_alone(tmp_path):
    import torch

    before = torch.random.get_rng_state()
    make_tiny_checkpoint(tmp_path / "x", sizes=ModelSizes(vision_layers=1, text_layers=1))
    assert np.array_equal(before.numpy(), torch.random.get_rng_state().numpy())


def test_config_is_the_native_format_without_remote_code(tmp_path):
    config = json.loads((make_tiny_checkpoint(tmp_path / "x") / "config.json").read_text())
    assert config["architectures"] == ["InternVLForConditionalGeneration"]
    assert "auto_map" not in config
    assert (config["image_seq_length"], config["text_config"]["head_dim"]) == (256, 64)
    vision = config["vision_config"]
    assert (vision["use_qk_norm"], vision["norm_type"], vision["attention_bias"]) == (
        False,
        "layer_norm",
        True,
    )


def test_a_directory_with_files_in_it_is_refused_and_left_as_it_was(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(ConfigError, match="new or empty folder"):
        make_tiny_checkpoint(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def test_sizes_that_do_not_divide_are_refused():
    with pytest.raises(ConfigError, match="multiple of 28"):
        ModelSizes(image_size=450)
    with pytest.raises(ConfigError, match="vision_heads=3"):
        ModelSizes(vision_heads=3)
    assert ModelSizes(image_size=224).image_tokens == 64


def test_the_command_writes_a_checkpoint_and_says_where(tmp_path, capsys):
    assert main(["make-tiny-checkpoint", "--to", str(tmp_path / "tiny")]) == 0
    assert str(tmp_path / "tiny") in capsys.readouterr().out
    assert (tmp_path / "tiny" / "model.safetensors").is_file()
