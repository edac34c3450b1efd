import json
import math
import shutil
from itertools import pairwise

import numpy as np
import pytest

from vlac_gym.critic.engines.base import EngineRequest
from vlac_gym.errors import ConfigError, CriticOverloadedError

pytest.importorskip("transformers")

from vlac_gym.critic.engines.plain_transformers import PlainTransformersEngine
from vlac_gym.critic.engines.transformers import TransformersEngine


@pytest.fixture(scope="module")
def plain(tiny_checkpoint):
    engine = PlainTransformersEngine(tiny_checkpoint, device="cpu")
    yield engine
    engine.close()


def probabilities(reply):
    return [{c.token: math.exp(c.logprob) for c in token.candidates} for token in reply.tokens]


def assert_same(replies, expected, tolerance=1e-5):
    assert [reply.text for reply in replies] == [reply.text for reply in expected]
    for ours, theirs in zip(replies, expected, strict=True):
        assert [token.token for token in ours.tokens] == [token.token for token in theirs.tokens]
        for left, right in zip(probabilities(ours), probabilities(theirs), strict=True):
            assert left.keys() == right.keys()
            assert max(abs(left[token] - right[token]) for token in left) < tolerance


@pytest.fixture(scope="module")
def mixed(frames, done, pair, thought):
    """Every kind of request, of several lengths, with frames in common."""
    return [
        done(frames[0]),
        done(frames[1], "put the bowl on the plate, then close the drawer of the cabinet"),
        done(frames[2]),
        pair(frames[0], frames[1]),
        pair(frames[1], frames[2], task="open it"),
        pair(frames[3], frames[4], references=(frames[5], frames[6])),
        pair(frames[4], frames[3], references=(frames[5], frames[6])),
        pair(frames[4], frames[3], references=(frames[5],)),
        thought(frames[0]),
        thought(frames[4]),
        EngineRequest("", "Say a number.", (), "number"),
    ]


def test_a_mixed_batch_equals_one_generate_per_request(fresh_engine, plain, mixed):
    assert_same(fresh_engine.generate(mixed), plain.generate(mixed))


def test_replies_tell_frames_apart(shared_engine, frames, done):
    first, second = shared_engine.generate([done(frames[0]), done(frames[1])])
    assert abs(first.tokens[0].logprob - second.tokens[0].logprob) > 0.01


def test_the_order_of_a_pair_matters(shared_engine, frames, pair):
    forward, backward = shared_engine.generate([pair(frames[0], frames[4]), pair(frames[4], frames[0])])
    assert abs(forward.tokens[0].logprob - backward.tokens[0].logprob) > 0.01


def test_replies_do_not_depend_on_what_else_is_in_the_call(fresh_engine, mixed):
    together = fresh_engine.generate(mixed)
    fresh_engine.forget()
    alone = [fresh_engine.generate([request])[0] for request in mixed]
    backwards = fresh_engine.generate(mixed[::-1])[::-1]
    assert_same(alone, together)
    assert_same(backwards, together)


def test_same_call_gives_the_same_bits(fresh_engine, mixed):
    first = fresh_engine.generate(mixed)
    fresh_engine.forget()
    assert fresh_engine.generate(mixed) == first


def test_small_batches_give_what_large_ones_give(tiny_checkpoint, mixed, shared_engine):
    engine = TransformersEngine(
        tiny_checkpoint, device="cpu", image_preparation="pillow", max_batch_tokens=500
    )
    assert_same(engine.generate(mixed), shared_engine.generate(mixed))
    engine.close()


def test_a_done_check_is_one_number_and_a_pair_a_sign_and_a_number_at_most(shared_engine, frames, done, pair):
    requests = [done(frame) for frame in frames] + [pair(a, b) for a in frames[:4] for b in frames[:4]]
    replies = shared_engine.generate(requests)
    for reply in replies[: len(frames)]:
        assert reply.text.isdigit()
        assert len(reply.tokens) == 1
    for reply in replies[len(frames) :]:
        assert reply.text.lstrip("+-").isdigit()
        assert len(reply.tokens) == (2 if reply.text[0] in "+-" else 1)
    assert {len(reply.tokens) for reply in replies[len(frames) :]} == {1, 2}


def test_candidates_are_the_ten_most_likely_of_the_full_softmax(shared_engine, frames, done, tiny_checkpoint):
    import torch
    from transformers import AutoTokenizer, InternVLForConditionalGeneration

    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    model = InternVLForConditionalGeneration.from_pretrained(tiny_checkpoint, dtype=torch.float32).eval()
    frame = frames[4]  # of the model's size, so that preparation is only normalisation
    pixels = torch.from_numpy(frame.copy()).permute(2, 0, 1)[None].float() / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = (pixels - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
    request = done(frame)
    text = (
        f"<|im_start|>system\n{request.system}<|im_end|>\n<|im_start|>user\n<img>{'<IMG_CONTEXT>' * 256}</img>\n"
        f"{request.prompt}<|im_end|>\n<|im_start|>assistant\n"
    )
    ids = tokenizer(text, return_tensors="pt").input_ids
    with torch.inference_mode():
        logits = model(input_ids=ids, pixel_values=pixels).logits[0, -1]
    top = torch.log_softmax(logits, 0).topk(10)
    candidates = shared_engine.generate([request])[0].tokens[0].candidates
    assert [c.token for c in candidates] == [tokenizer.decode([i]) for i in top.indices]
    assert [c.logprob for c in candidates] == pytest.approx(top.values.tolist(), abs=1e-4)


def test_a_value_list_over_judged_frames_runs_no_vision_forward(fresh_engine, frames, done, pair):
    fresh_engine.generate([done(frame) for frame in frames])
    assert fresh_engine.statistics().frames_encoded == 8
    fresh_engine.generate([pair(a, b) for a, b in pairwise(frames)])
    assert fresh_engine.statistics().frames_encoded == 8


def test_equal_pictures_in_other_arrays_are_encoded_once(fresh_engine, frames, done):
    fresh_engine.generate([done(frames[0]), done(frames[0].copy()), done(np.asfortranarray(frames[0]))])
    assert fresh_engine.statistics().frames_encoded == 1


def test_references_are_encoded_and_computed_once_for_all_pairs(fresh_engine, frames, pair):
    references = tuple(frames[5:8])
    fresh_engine.generate([pair(a, b, references) for a, b in pairwise(frames[:5])])
    counts = fresh_engine.statistics()
    assert (counts.frames_encoded, counts.prefixes_computed) == (8, 1)
    fresh_engine.generate([pair(frames[4], frames[0], references)])
    counts = fresh_engine.statistics()
    assert (counts.frames_encoded, counts.prefixes_computed, counts.prefixes_from_cache) == (8, 1, 1)


def test_a_shared_beginning_is_computed_once(fresh_engine, frames, done):
    from_one = len(fresh_engine_tokens(fresh_engine, done(frames[0])))
    fresh_engine.generate([done(frame) for frame in frames[:4]])
    shared = fresh_engine_tokens(fresh_engine, done(frames[0]))[:-1].index("<img>") + 1
    assert fresh_engine.statistics().prompt_tokens == shared + 4 * (from_one - shared)


def fresh_engine_tokens(engine, request):
    """Token texts of a request's prompt."""
    prompts = engine._parts.prompts
    return [prompts.token_text(int(i)) for i in prompts.encode(request).ids]


def test_without_a_cache_frames_are_encoded_anew_and_answers_stay(tiny_checkpoint, frames, done, pair):
    engine = TransformersEngine(tiny_checkpoint, device="cpu", vision_cache_mb=0)
    requests = [done(frames[0]), pair(frames[0], frames[1]), pair(frames[1], frames[0])]
    once = engine.generate(requests)
    encoded = engine.statistics().frames_encoded
    assert engine.generate(requests) == once
    assert engine.statistics().frames_encoded == 2 * encoded
    engine.close()


def test_padding_stays_below_a_tenth(fresh_engine, frames, done):
    tasks = ["a " * n for n in (1, 20, 60, 120, 200, 300, 400, 600)]
    fresh_engine.generate([done(frame, task) for frame, task in zip(frames, tasks)])
    counts = fresh_engine.statistics()
    assert counts.padding_tokens <= 0.1 * counts.prompt_tokens


def test_frames_are_left_as_they_were_and_may_be_read_only(shared_engine, frames, done):
    frame = frames[0].copy()
    frame.setflags(write=False)
    shared_engine.generate([done(frame)])
    assert np.array_equal(frame, frames[0])


def test_a_malformed_request_is_refused_before_any_runs(fresh_engine, frames, done):
    with pytest.raises(ConfigError, match="got float32"):
        fresh_engine.generate([done(frames[0]), done(frames[0].astype(np.float32))])
    assert fresh_engine.statistics().frames_encoded == 0


def test_no_requests_give_no_replies(shared_engine):
    assert shared_engine.generate([]) == []


def test_a_sleeping_engine_refuses_and_wakes_with_the_same_answers(fresh_engine, mixed):
    before = fresh_engine.generate(mixed)
    fresh_engine.sleep()
    fresh_engine.sleep()
    with pytest.raises(CriticOverloadedError, match="asleep"):
        fresh_engine.generate(mixed)
    encoded = fresh_engine.statistics().frames_encoded
    fresh_engine.wake()
    fresh_engine.wake()
    assert fresh_engine.generate(mixed) == before
    assert fresh_engine.statistics().frames_encoded == 2 * encoded  # sleep dropped the features


def test_a_sleep_that_failed_half_way_is_finished_or_undone(fresh_engine, mixed, monkeypatch):
    before = fresh_engine.generate(mixed)
    text, moves = fresh_engine._parts.text, []
    full = True

    def to(device):
        if full:
            raise RuntimeError("no room on the host")
        moves.append(str(device))

    monkeypatch.setattr(text, "to", to)
    with pytest.raises(RuntimeError, match="no room"):
        fresh_engine.sleep()
    with pytest.raises(CriticOverloadedError, match="asleep"):
        fresh_engine.generate(mixed)
    full = False
    fresh_engine.sleep()
    fresh_engine.wake()
    assert moves == ["cpu", "cpu"]  # the host, and then the engine's own device
    assert fresh_engine.generate(mixed) == before


def test_close_twice_is_safe(tiny_checkpoint):
    engine = TransformersEngine(tiny_checkpoint, device="cpu")
    engine.close()
    engine.close()
    assert engine.describe()["name"] == "transformers"


def test_a_closed_engine_is_no_engine_that_another_try_could_reach(tiny_checkpoint, mixed):
    engine = TransformersEngine(tiny_checkpoint, device="cpu")
    engine.close()
    for use in (lambda: engine.generate(mixed), lambda: engine.warm_up(mixed), engine.wake):
        with pytest.raises(ConfigError, match="closed"):
            use()
    engine.sleep()


def test_warm_up_changes_no_answer(fresh_engine, mixed, done, frames):
    before = fresh_engine.generate(mixed)
    report = fresh_engine.warm_up([done(frames[0])])
    assert report.seconds > 0
    assert not report.is_compiled  # nothing is compiled on a CPU
    assert_same(fresh_engine.generate(mixed), before)


def test_describe_is_json_and_names_device_and_checkpoint(shared_engine, tiny_checkpoint):
    facts = json.loads(json.dumps(shared_engine.describe()))
    assert facts["name"] == "transformers"
    assert facts["model"] == str(tiny_checkpoint)
    assert (facts["device"], facts["dtype"], facts["image_size"]) == ("cpu", "float32", 448)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "cuda:7"}, "torch sees none of that name"),
        ({"device": "gpu"}, "such as 'cpu' or 'cuda:0'"),
        ({"dtype": "int8"}, "Unknown dtype 'int8'"),
        ({"image_preparation": "pil"}, "Unknown image preparation 'pil'. Available: device, pillow"),
        ({"vision_cache_mb": -1}, "vision_cache_mb >= 0"),
        ({"max_batch_tokens": 0}, "max_batch_tokens >= 1"),
        ({"max_gpu_memory_gb": 0.0}, "max_gpu_memory_gb > 0"),
        ({"max_gpu_memory_gb": 8.0, "device": "cpu"}, "the device is 'cpu'. Leave it out"),
    ],
)
def test_options_that_do_not_fit_are_refused(tiny_checkpoint, options, message):
    with pytest.raises(ConfigError, match=message):
        TransformersEngine(tiny_checkpoint, **options)


def test_weights_that_do_not_fill_the_model_are_refused(tiny_checkpoint, tmp_path):
    from safetensors.torch import load_file, save_file

    copy = shutil.copytree(tiny_checkpoint, tmp_path / "copy")
    tensors = load_file(copy / "model.safetensors")
    gone = next(name for name in tensors if name.endswith("layers.1.self_attn.q_proj.weight"))
    del tensors[gone]
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"1 are missing, e\.g\. .*q_proj\.weight"):
        TransformersEngine(copy, device="cpu")


def test_a_config_of_other_sizes_than_the_weights_is_refused(tiny_checkpoint, tmp_path):
    copy = shutil.copytree(tiny_checkpoint, tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    config["text_config"]["hidden_size"] = 192
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=r"do not fit its config\.json"):
        TransformersEngine(copy, device="cpu")


def test_image_tokens_that_do_not_match_the_vision_tower_are_refused(tiny_checkpoint, tmp_path):
    copy = shutil.copytree(tiny_checkpoint, tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"image_seq_length": 64}))
    with pytest.raises(ConfigError, match="64 features each"):
        TransformersEngine(copy, device="cpu")


def test_code_in_a_checkpoint_never_runs(tiny_checkpoint, tmp_path):
    copy = shutil.copytree(tiny_checkpoint, tmp_path / "copy")
    (copy / "trap.py").write_text("raise SystemExit('ran')")
    config = json.loads((copy / "config.json").read_text())
    auto_map = {"AutoConfig": "trap.Trap", "AutoModel": "trap.Trap", "AutoTokenizer": ["trap.Trap", None]}
    (copy / "config.json").write_text(json.dumps(config | {"auto_map": auto_map}))
    settings = json.loads((copy / "tokenizer_config.json").read_text())
    (copy / "tokenizer_config.json").write_text(json.dumps(settings | {"auto_map": auto_map}))
    engine = TransformersEngine(copy, device="cpu")
    assert engine.describe()["model"] == str(copy)
    engine.close()
