import importlib.util
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from vlac_gym.critic.engines import swift
from vlac_gym.critic.engines.base import EngineRequest
from vlac_gym.critic.engines.checkpoint_digest import checkpoint_digest
from vlac_gym.critic.engines.swift import SwiftEngine
from vlac_gym.errors import ConfigError, CriticServerError, DependencyNotInstalled

FRAME = np.zeros((4, 6, 3), np.uint8)


class FakeTransformersEngine:
    """ms-swift's engine as far as it is used: records what it is asked, says the number of pictures."""

    def __init__(self, path, **options):
        self.options = options
        self.calls = []
        self.model = SimpleNamespace(device="cpu")
        self.template = SimpleNamespace(input_size=448)

    def infer(self, requests, config, *, use_tqdm):
        self.calls.append((requests, config))
        if any("boom" in request.messages[-1]["content"] for request in requests):
            raise RuntimeError("out of memory")
        return [answer(str(len(request.images))) for request in requests]


def answer(text):
    token = {"token": text, "logprob": -0.5, "top_logprobs": [{"token": text, "logprob": -0.5}]}
    choice = SimpleNamespace(message=SimpleNamespace(content=text), logprobs={"content": [token]})
    return SimpleNamespace(choices=[choice])


@pytest.fixture
def fake_swift(monkeypatch):
    pytest.importorskip("torch")
    protocol = SimpleNamespace(InferRequest=SimpleNamespace, RequestConfig=SimpleNamespace)
    modules = {
        "swift": SimpleNamespace(__spec__=importlib.util.spec_from_loader("swift", None)),
        "swift.infer_engine": SimpleNamespace(TransformersEngine=FakeTransformersEngine),
        "swift.infer_engine.protocol": protocol,
    }
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)


def write_config(path, **changes):
    config = {"model_type": "internvl", "vision_config": {"image_size": [28, 28]}} | changes
    (path / "config.json").write_text(json.dumps(config))
    return path


def test_a_missing_ms_swift_is_named_with_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr(swift.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DependencyNotInstalled, match=r'pip install "vlac-gym\[swift\]"'):
        SwiftEngine(write_config(tmp_path))


def test_native_checkpoint_is_loaded_once_with_its_template(tmp_path, fake_swift):
    engine = SwiftEngine(write_config(tmp_path), device="cpu", dtype="float32", max_batch_size=3)
    assert engine._engine is None
    engine.generate([EngineRequest("", "a", ())])
    inner = engine._engine
    engine.generate([EngineRequest("", "b", ())])
    assert engine._engine is inner
    assert len(inner.calls) == 2
    options = inner.options
    assert (options["model_type"], options["template_type"]) == ("internvl", "internvl_hf")
    assert (options["device_map"], options["max_batch_size"]) == ("cpu", 3)
    assert str(options["torch_dtype"]) == "torch.float32"
    assert inner.template.input_size == 28


def test_original_checkpoint_needs_leave_to_run_its_code(tmp_path, fake_swift):
    path = write_config(
        tmp_path, model_type="internvl_chat", force_image_size=56, auto_map={"AutoModel": "m.Model"}
    )
    with pytest.raises(ConfigError, match="vlac-gym convert"):
        SwiftEngine(path)
    engine = SwiftEngine(path, allow_remote_code=True)
    engine.generate([EngineRequest("", "a", ())])
    options = engine._engine.options
    assert (options["model_type"], options["template_type"]) == ("internvl_chat", "internvl2")
    assert engine._engine.template.input_size == 56


def test_code_behind_a_tokenizer_needs_leave_too(tmp_path, fake_swift):
    write_config(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": ["evil--repo.T", null]}}')
    with pytest.raises(ConfigError, match="refers to Python code"):
        SwiftEngine(tmp_path)


def test_requests_are_grouped_by_length_and_answered_in_order(tmp_path, fake_swift):
    engine = SwiftEngine(write_config(tmp_path))
    replies = engine.generate(
        [
            EngineRequest("be brief", "<image> <image>", (FRAME, FRAME), max_new_tokens=8),
            EngineRequest("", "x", (), max_new_tokens=2),
            EngineRequest("", "no mark", (FRAME,), max_new_tokens=8),
        ]
    )
    assert [reply.text for reply in replies] == ["2", "0", "1"]
    calls = engine._engine.calls
    assert [(config.max_tokens, len(requests)) for requests, config in calls] == [(2, 1), (8, 2)]
    config = calls[1][1]
    assert (config.temperature, config.logprobs, config.top_logprobs) == (0.0, True, 10)
    first, last = calls[1][0]
    assert first.messages == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "<image> <image>"},
    ]
    # An empty system message, because without one ms-swift would put in InternVL's own.
    assert last.messages == [{"role": "system", "content": ""}, {"role": "user", "content": "no mark"}]
    assert [picture.size for picture in first.images] == [(28, 28), (28, 28)]


def test_no_more_pictures_are_prepared_than_one_batch_shows(tmp_path, fake_swift):
    engine = SwiftEngine(write_config(tmp_path), max_batch_size=3)
    requests = [EngineRequest("", "<image>" * count, (FRAME,) * count) for count in (1, 2, 1, 3, 2, 1, 1)]
    assert [reply.text for reply in engine.generate(requests)] == ["1", "2", "1", "3", "2", "1", "1"]
    assert [len(batch) for batch, _ in engine._engine.calls] == [3, 3, 1]


def test_a_failure_inside_ms_swift_is_a_server_error(tmp_path, fake_swift):
    engine = SwiftEngine(write_config(tmp_path))
    with pytest.raises(CriticServerError, match="ms-swift failed on 1 requests: RuntimeError: out of memory"):
        engine.generate([EngineRequest("", "boom", ())])


def test_malformed_requests_are_refused_before_loading(tmp_path, fake_swift):
    engine = SwiftEngine(write_config(tmp_path))
    with pytest.raises(ConfigError, match="1 marks for 0 frames"):
        engine.generate([EngineRequest("", "<image>", ())])
    assert engine._engine is None
    assert engine.generate([]) == []


def test_describe_loads_nothing_and_close_is_final(tmp_path, fake_swift):
    engine = SwiftEngine(write_config(tmp_path), device="cuda:1", dtype="bfloat16")
    assert engine.describe() == {
        "name": "swift",
        "model": str(tmp_path),
        "device": "cuda:1",
        "dtype": "bfloat16",
        "format": "internvl",
        "weights_digest": checkpoint_digest(tmp_path),
    }
    engine.sleep()
    engine.wake()
    engine.close()
    engine.close()
    with pytest.raises(ConfigError, match="closed"):
        engine.generate([EngineRequest("", "a", ())])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "qwen2_vl"}, "internvl_chat or internvl"),
        ({"vision_config": {}}, "configuration of an InternVL model"),
    ],
)
def test_other_checkpoints_are_refused(tmp_path, fake_swift, changes, message):
    with pytest.raises(ConfigError, match=message):
        SwiftEngine(write_config(tmp_path, **changes))


def test_arguments_out_of_range_are_refused(tmp_path, fake_swift):
    with pytest.raises(ConfigError, match="Unknown dtype 'float8'"):
        SwiftEngine(write_config(tmp_path), dtype="float8")
    with pytest.raises(ConfigError, match="max_batch_size >= 1"):
        SwiftEngine(write_config(tmp_path), max_batch_size=0)
    with pytest.raises(ConfigError, match=r"directory with config\.json"):
        SwiftEngine(tmp_path / "nowhere")
