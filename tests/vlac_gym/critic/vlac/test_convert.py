import json
import math
import tracemalloc

import numpy as np
import original_checkpoint as original
import pytest

from vlac_gym.cli import main
from vlac_gym.critic.vlac.convert import convert_checkpoint
from vlac_gym.critic.vlac.convert_layout import Split, read_layout
from vlac_gym.errors import ConfigError

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("sentencepiece")

WQKV = "language_model.model.layers.0.attention.wqkv.weight"
WO = "language_model.model.layers.0.attention.wo.weight"


@pytest.fixture(scope="module")
def sentencepiece_model():
    return original.train_sentencepiece()


@pytest.fixture
def source(tmp_path, sentencepiece_model):
    directory = tmp_path / "original"
    original.write_original(directory, sentencepiece_model)
    return directory


def edit_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def rewrite_weights(directory, tensors, num_shards=2):
    for file in directory.glob("model*.safetensors*"):
        file.unlink()
    original.write_weights(directory, tensors, num_shards)


def load(directory):
    from transformers import InternVLForConditionalGeneration

    model, info = InternVLForConditionalGeneration.from_pretrained(
        directory, attn_implementation="eager", output_loading_info=True, trust_remote_code=False
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    return model.eval()


def num_rows(rows):
    return np.array(rows, np.uint8)[:, None]


def test_wqkv_rows_are_grouped_by_key_value_head():
    # Two groups of (two queries, key, value), one row a head: q0 q1 k0 v0 q2 q3 k1 v1.
    rows, split = num_rows(range(8)), Split(groups=2, queries_per_group=2, head_rows=1)
    assert split.rows("q", rows).ravel().tolist() == [0, 1, 4, 5]
    assert split.rows("k", rows).ravel().tolist() == [2, 6]
    assert split.rows("v", rows).ravel().tolist() == [3, 7]


def test_qkv_of_the_vision_tower_is_three_blocks():
    rows, split = num_rows(range(6)), Split(groups=1, queries_per_group=1, head_rows=2)
    assert [split.rows(part, rows).ravel().tolist() for part in "qkv"] == [[0, 1], [2, 3], [4, 5]]


def test_converted_attention_gives_the_result_worked_out_by_hand(source, tmp_path, sentencepiece_model):
    """Two tokens, 4 query heads of width 2 over 2 key/value heads, no rotation.

    Token 0 has keys 0, token 1 the keys (sqrt 2, 0) and (0, sqrt 2), so that a query (ln 3, .) of group 0
    weighs the tokens 1 : 3 and a query orthogonal to its key weighs them 1 : 1.
    """
    ln3, root2 = math.log(3), math.sqrt(2)
    token_1 = [
        *([ln3, 0], [0, 7], [root2, 0], [8, 4]),  # group 0: two queries, key, value
        *([5, ln3], [0, 0], [0, root2], [80, 0]),  # group 1
    ]
    token_0 = [*([0, 0], [0, 0], [0, 0], [4, 0]), *([0, 0], [0, 0], [0, 0], [0, 40])]
    tensors = original.write_original(source, sentencepiece_model)
    tensors[WQKV][:] = 0
    tensors[WQKV][:, 0] = np.ravel(token_0)
    tensors[WQKV][:, 1] = np.ravel(token_1)
    tensors[WO][:] = np.eye(8)
    rewrite_weights(source, tensors)
    convert_checkpoint(source, tmp_path / "native")
    attention = load(tmp_path / "native").model.language_model.layers[0].self_attn
    hidden = torch.eye(8)[None, :2]
    no_rotation = torch.ones(1, 2, 2), torch.zeros(1, 2, 2)
    causal = torch.tensor([[0.0, -torch.inf], [0.0, 0.0]])[None, None]
    with torch.no_grad():
        out, _ = attention(hidden, position_embeddings=no_rotation, attention_mask=causal)
    # Heads of token 1: (4+3*8)/4, 3*4/4 | (4+8)/2, 4/2 | 3*80/4, 40/4 | 80/2, 40/2.
    expected = [[4, 0, 4, 0, 0, 40, 0, 40], [7, 3, 6, 2, 60, 10, 40, 20]]
    np.testing.assert_allclose(out[0].numpy(), expected, atol=1e-5)


def test_every_tensor_lands_where_the_native_model_has_it(source, tmp_path, sentencepiece_model):
    tensors = original.write_original(source, sentencepiece_model)
    done = convert_checkpoint(source, tmp_path / "native")
    assert (done.num_source_tensors, done.num_target_tensors) == (34, 40)
    native = {name: value.numpy() for name, value in load(tmp_path / "native").state_dict().items()}
    vision, text = "model.vision_tower.encoder.layer.0", "model.language_model.layers.0"
    first = {
        "model.vision_tower.embeddings.cls_token": "vision_model.embeddings.class_embedding",
        f"{vision}.lambda_1": "vision_model.encoder.layers.0.ls1",
        f"{vision}.layernorm_after.bias": "vision_model.encoder.layers.0.norm2.bias",
        f"{vision}.attention.projection_layer.weight": "vision_model.encoder.layers.0.attn.proj.weight",
        "model.multi_modal_projector.linear_2.weight": "mlp1.3.weight",
        f"{text}.mlp.gate_proj.weight": "language_model.model.layers.0.feed_forward.w1.weight",
        f"{text}.mlp.up_proj.weight": "language_model.model.layers.0.feed_forward.w3.weight",
        f"{text}.mlp.down_proj.weight": "language_model.model.layers.0.feed_forward.w2.weight",
        f"{text}.post_attention_layernorm.weight": "language_model.model.layers.0.ffn_norm.weight",
        "lm_head.weight": "language_model.output.weight",
    }
    for target, name in first.items():
        np.testing.assert_array_equal(native[target], tensors[name], err_msg=target)
    qkv = tensors["vision_model.encoder.layers.0.attn.qkv.bias"]
    np.testing.assert_array_equal(native[f"{vision}.attention.v_proj.bias"], qkv[8:])


def test_configuration_keeps_what_the_arithmetic_depends_on(source, tmp_path):
    convert_checkpoint(source, tmp_path / "native")
    config = load(tmp_path / "native").config
    assert config.image_seq_length == 1  # 28 px / 14 px = 2 patches a side, 2 x 2 shuffled into one
    assert tuple(config.vision_config.image_size) == (28, 28)
    assert config.text_config.rope_parameters == {"rope_type": "default", "rope_theta": 1000000}
    assert (config.text_config.rms_norm_eps, config.text_config.num_key_value_heads) == (1e-5, 2)
    assert (config.vision_config.attention_bias, config.tie_word_embeddings) == (True, False)


def test_rotation_scaling_is_kept():
    config = original.make_config(10)
    config["llm_config"]["rope_scaling"] = {"type": "dynamic", "factor": 2.0}
    rope = read_layout(config).config["text_config"]["rope_parameters"]
    assert rope == {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1000000}


def test_converted_checkpoint_answers_in_the_transformers_engine(source, tmp_path):
    from vlac_gym.critic.engines.base import EngineRequest
    from vlac_gym.critic.engines.transformers import TransformersEngine

    convert_checkpoint(source, tmp_path / "native")
    engine = TransformersEngine(tmp_path / "native", device="cpu", dtype="float32")
    frame = np.zeros((28, 28, 3), np.uint8)
    (reply,) = engine.generate([EngineRequest("be brief", "7 or 8?", (frame,), answer="number")])
    engine.close()
    assert reply.tokens[0].token.isdigit()
    assert len(reply.tokens[0].candidates) == 10


def test_conversion_never_runs_code_of_the_checkpoint(source, tmp_path):
    # modeling_internvl_chat.py and tokenization_internlm2.py in the source raise when executed.
    convert_checkpoint(source, tmp_path / "native")
    assert not list((tmp_path / "native").glob("*.py"))
    assert "auto_map" not in "".join(file.read_text() for file in (tmp_path / "native").glob("*.json"))


def test_same_input_gives_the_same_bytes_and_digests(source, tmp_path):
    convert_checkpoint(source, tmp_path / "a")
    convert_checkpoint(source, tmp_path / "b")
    names = sorted(file.name for file in (tmp_path / "a").iterdir())
    assert names == sorted(file.name for file in (tmp_path / "b").iterdir())
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in names)
    report = json.loads((tmp_path / "a" / "conversion.json").read_text())
    assert set(report["target_sha256"]) == set(names) - {"conversion.json"}
    assert "model-00001-of-00002.safetensors" in report["source_sha256"]


def test_one_file_and_two_shards_hold_the_same_model(source, tmp_path, sentencepiece_model):
    convert_checkpoint(source, tmp_path / "two")
    tensors = original.write_original(source, sentencepiece_model)
    rewrite_weights(source, tensors, num_shards=1)
    convert_checkpoint(source, tmp_path / "one")
    assert (tmp_path / "one" / "model.safetensors").is_file()
    one, two = load(tmp_path / "one").state_dict(), load(tmp_path / "two").state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_bfloat16_passes_through_bit_for_bit(source, tmp_path, sentencepiece_model):
    from safetensors.torch import load_file, save_file

    tensors = original.write_original(source, sentencepiece_model)
    halves = {name: torch.from_numpy(value).to(torch.bfloat16) for name, value in tensors.items()}
    for file in source.glob("model*.safetensors*"):
        file.unlink()
    save_file(halves, source / "model.safetensors")
    convert_checkpoint(source, tmp_path / "native")
    native = load_file(tmp_path / "native" / "model.safetensors")
    assert {value.dtype for value in native.values()} == {torch.bfloat16}
    assert torch.equal(native["language_model.lm_head.weight"], halves["language_model.output.weight"])
    assert json.loads((tmp_path / "native" / "config.json").read_text())["dtype"] == "bfloat16"


def test_memory_holds_one_tensor_and_not_a_shard(source, tmp_path, sentencepiece_model):
    pieces = original.num_pieces(sentencepiece_model)
    wide = {"hidden_size": 512, "intermediate_size": 512, "num_attention_heads": 4, "vocab_size": pieces + 6}
    edit_json(source / "config.json", llm_config=original.make_config(0)["llm_config"] | wide)
    tensors = original.make_tensors(pieces + 6)
    for name, tensor in tensors.items():
        if "mlp1" in name or "language_model" in name:
            shape = tuple({8: 512, 12: 512, 16: 1024}.get(size, size) for size in tensor.shape)
            shape = (512, 16) if name == "mlp1.1.weight" else (16,) if "mlp1.0" in name else shape
            tensors[name] = np.zeros(shape, np.float32)
    rewrite_weights(source, tensors, num_shards=1)
    convert_checkpoint(source, tmp_path / "warm")  # imports are paid for
    tracemalloc.start()
    convert_checkpoint(source, tmp_path / "native")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    largest = max(tensor.nbytes for tensor in tensors.values())
    total = sum(tensor.nbytes for tensor in tensors.values())
    assert largest == 4 * 1024 * 512
    assert total > 4.5 * largest
    assert peak < 2 * largest + 4_000_000  # a fused tensor, one part of it, tokenizer and meta model


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "llama"}, "Expected model_type 'internvl_chat'"),
        ({"model_type": "internvl"}, "native format already"),
        ({"ps_version": "v1"}, "Expected ps_version 'v2'"),
        ({"select_layer": -2}, "Expected select_layer -1"),
        ({"llm_config": {"architectures": ["Qwen2ForCausalLM"]}}, "InternLM2ForCausalLM"),
        ({"vision_config": {"hidden_size": 4}}, "misstates a setting: KeyError"),
        ({"llm_config": None}, "misstates a setting"),
        ({"force_image_size": 56}, "position_embedding' with shape"),
    ],
)
def test_other_architectures_are_refused_before_anything_is_written(source, tmp_path, change, message):
    edit_json(source / "config.json", **change)
    with pytest.raises(ConfigError, match=message):
        convert_checkpoint(source, tmp_path / "native")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["original"]


def drop_tensor(source, tensors):
    del tensors[WQKV]
    rewrite_weights(source, tensors)


def add_tensor(source, tensors):
    rewrite_weights(source, tensors | {"vision_model.head": np.zeros(3, np.float32)})


def misshape_tensor(source, tensors):
    rewrite_weights(source, tensors | {WO: np.zeros((8, 9), np.float32)})


def mix_dtypes(source, tensors):
    rewrite_weights(source, tensors | {WO: np.zeros((8, 8), np.float16)})


def store_integers(source, tensors):
    rewrite_weights(source, tensors | {WO: np.zeros((8, 8), np.int8)})


def drop_shard(source, tensors):
    (source / "model-00002-of-00002.safetensors").unlink()


def cut_shard(source, tensors):
    shard = source / "model-00002-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-5])


def replace_by_text(source, tensors):
    (source / "model-00002-of-00002.safetensors").write_bytes(b"version https://git-lfs")


def point_outside(source, tensors):
    index = source / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"mlp1.0.weight": "../secret.safetensors"}}))


def leave_pickles_only(source, tensors):
    for file in source.glob("model*.safetensors*"):
        file.unlink()
    (source / "pytorch_model.bin").write_bytes(b"pickle")


def store_twice(source, tensors):
    first = source / "model-00001-of-00002.safetensors"
    first.write_bytes((source / "model-00002-of-00002.safetensors").read_bytes())


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (drop_tensor, f"missing: {WQKV}; none not expected"),
        (add_tensor, "none missing; not expected: vision_model.head"),
        (misshape_tensor, r"with shape \(8, 8\), got \(8, 9\)"),
        (mix_dtypes, "one dtype, got F16, F32"),
        (store_integers, "unquantised"),
        (drop_shard, "Expected the shard 'model-00002-of-00002.safetensors'"),
        (cut_shard, "cut short"),
        (replace_by_text, "Expected a safetensors file"),
        (point_outside, "secret.safetensors"),
        (leave_pickles_only, "Only safetensors"),
        (store_twice, "names 'model-00002-of-00002.safetensors' for it|expected once"),
    ],
)
def test_wrong_weights_are_named_and_leave_nothing_behind(
    source, tmp_path, sentencepiece_model, spoil, message
):
    spoil(source, original.write_original(source, sentencepiece_model))
    with pytest.raises(ConfigError, match=message):
        convert_checkpoint(source, tmp_path / "native")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["original"]


def test_a_failure_while_writing_leaves_nothing_behind(source, tmp_path, monkeypatch):
    from vlac_gym.critic.vlac import convert

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(convert, "_write_report", fail)
    with pytest.raises(OSError, match="disk full"):
        convert_checkpoint(source, tmp_path / "native")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["original"]


def test_a_full_disk_is_noticed_before_writing(source, tmp_path, monkeypatch):
    from types import SimpleNamespace

    from vlac_gym.critic.vlac import convert

    monkeypatch.setattr(convert.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(ConfigError, match="of free disk"):
        convert_checkpoint(source, tmp_path / "native")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["original"]


def test_a_target_in_use_is_refused(source, tmp_path):
    target = tmp_path / "native"
    target.mkdir()
    convert_checkpoint(source, target)  # an empty directory is taken
    with pytest.raises(ConfigError, match="new or empty folder"):
        convert_checkpoint(source, target)


def test_something_else_than_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="Expected a checkpoint directory with"):
        convert_checkpoint(tmp_path / "nowhere", tmp_path / "native")


def test_command_converts_and_says_what_was_written(source, tmp_path, capsys):
    assert main(["convert", "--from", str(source), "--to", str(tmp_path / "native")]) == 0
    out = capsys.readouterr().out
    assert "34 tensors -> 40" in out
    assert "below 200 are one token each" in out
    assert main(["convert", "--from", str(source), "--to", str(tmp_path / "native")]) == 2
