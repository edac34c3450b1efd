import json
import shutil
import struct

import pytest

from vlac_gym.critic.engines.checkpoint_files import inspect_checkpoint
from vlac_gym.errors import ConfigError

pytest.importorskip("transformers")


@pytest.fixture
def copy(tiny_checkpoint, tmp_path):
    """A copy of the tiny checkpoint that a test may damage."""
    return shutil.copytree(tiny_checkpoint, tmp_path / "copy")


def change_config(directory, **changes):
    file = directory / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_facts_of_the_tiny_checkpoint(tiny_checkpoint):
    facts = inspect_checkpoint(tiny_checkpoint)
    assert facts.embedding_rows == 1536
    assert facts.num_parameters * 4 == pytest.approx(
        (tiny_checkpoint / "model.safetensors").stat().st_size, rel=0.01
    )
    assert facts.image_mean == (0.485, 0.456, 0.406)
    assert facts.image_std == (0.229, 0.224, 0.225)


def test_a_path_that_is_no_directory_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="not a directory"):
        inspect_checkpoint(tmp_path / "nowhere")


def test_a_directory_without_a_config_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"Expected config\.json .* Is it a checkpoint directory"):
        inspect_checkpoint(tmp_path)


def test_a_config_that_is_no_json_is_refused(copy):
    (copy / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="Expected JSON in"):
        inspect_checkpoint(copy)


def test_vlacs_original_format_is_refused_with_the_command_that_converts_it(copy):
    change_config(copy, model_type="internvl_chat")
    with pytest.raises(ConfigError, match="vlac-gym convert --from PATH --to PATH"):
        inspect_checkpoint(copy)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "llava"}, "Expected architecture InternVLForConditionalGeneration"),
        ({"architectures": ["LlamaForCausalLM"]}, r"got \['LlamaForCausalLM'\]"),
        ({"text_config": {"model_type": "gpt2"}}, "type llama or qwen2, got 'gpt2'"),
        ({"vision_feature_layer": -2}, "vision_feature_layer -1"),
    ],
)
def test_another_architecture_is_refused(copy, changes, message):
    change_config(copy, **changes)
    with pytest.raises(ConfigError, match=message):
        inspect_checkpoint(copy)


def test_pickled_weights_are_refused_with_the_reason(copy):
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(ConfigError, match=r"pytorch_model\.bin\) are never loaded: they can run code"):
        inspect_checkpoint(copy)


def test_a_missing_shard_is_named(copy):
    shards = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    (copy / "model.safetensors").rename(copy / "model-1.safetensors")
    with pytest.raises(ConfigError, match=r"lacks shards that its index names: model-2\.safetensors"):
        inspect_checkpoint(copy)


def test_shards_outside_the_directory_are_refused(copy):
    (copy.parent / "outside.safetensors").write_bytes((copy / "model.safetensors").read_bytes())
    index = {"weight_map": {"a": "../outside.safetensors"}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ConfigError, match="Expected shards inside"):
        inspect_checkpoint(copy)


def test_a_shard_that_is_cut_short_is_refused(copy):
    file = copy / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(ConfigError, match="the copy is incomplete"):
        inspect_checkpoint(copy)


@pytest.mark.parametrize("content", [b"", b"abc", struct.pack("<Q", 4) + b"oops", struct.pack("<Q", 10**9)])
def test_a_file_that_is_no_safetensors_is_refused(copy, content):
    (copy / "model.safetensors").write_bytes(content)
    with pytest.raises(ConfigError, match="Expected a safetensors file"):
        inspect_checkpoint(copy)


def test_a_checkpoint_without_a_tokenizer_is_refused(copy):
    (copy / "tokenizer.json").unlink()
    with pytest.raises(ConfigError, match=r"Expected tokenizer\.json or tokenizer\.model"):
        inspect_checkpoint(copy)
