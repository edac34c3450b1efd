"""What transformers 4 needs to read a checkpoint of transformers 5, by the branch that it takes there."""

import json

from vlac_gym.critic.engines import transformers_versions
from vlac_gym.critic.engines.transformers_versions import load_tokenizer, model_config
from vlac_gym.critic.nano.factory import CHECKPOINT


def test_old_transformers_reads_the_same_tokens(monkeypatch):
    text = "Is it done? <img><IMG_CONTEXT></img><|im_start|>user\n95% no<|im_end|>"
    expected = load_tokenizer(CHECKPOINT)(text)["input_ids"]
    monkeypatch.setattr(transformers_versions, "_IS_OLD", True)
    assert load_tokenizer(CHECKPOINT)(text)["input_ids"] == expected


def test_old_transformers_is_told_the_base_of_the_rotary_angles(monkeypatch):
    content = json.loads((CHECKPOINT / "config.json").read_text())
    before = json.dumps(content)
    monkeypatch.setattr(transformers_versions, "_IS_OLD", True)
    monkeypatch.setattr(transformers_versions.transformers, "InternVLConfig", lambda **given: given)
    assert model_config(content)["text_config"]["rope_theta"] == 1000000.0
    assert json.dumps(content) == before
    assert model_config({"text_config": {"rope_theta": 7.0}})["text_config"] == {"rope_theta": 7.0}
