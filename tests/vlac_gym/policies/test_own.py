"""Policies from factories of a user's own."""

import importlib.util

import numpy as np
import own_policies
import pytest

from vlac_gym.envs.scripted import ScriptedEnv
from vlac_gym.errors import ConfigError, PolicyError
from vlac_gym.policies import ChunkPolicy, make_policy
from vlac_gym.policies.simple import ZeroPolicy

PICTURE = np.zeros((224, 224, 3), np.uint8)
OBSERVATION = {"agentview_image": PICTURE, "wrist_image": PICTURE, "state": np.zeros(8, np.float32)}


def test_a_function_acts_with_options_typed_by_annotation_and_default():
    policy = make_policy("own_policies:push?x=0.5,gripper=1,label=7")
    policy.reset(ScriptedEnv())
    assert policy.act({}, {}).tolist() == [0.5, 0, 0, 0, 0, 0, 1.0]


def test_a_policy_is_taken_as_it_is():
    assert isinstance(make_policy("own_policies:Policies.still"), ZeroPolicy)


@pytest.mark.parametrize("kind", ["ChunkModel", "BatchModel"])
def test_a_model_behind_a_preset_answers_with_chunks_in_the_envs_convention(kind):
    policy = make_policy(f"own_policies:{kind}?x=0.5,preset=openvla_oft")
    assert isinstance(policy, ChunkPolicy)
    own_policies.BatchModel.batches.clear()
    chunks = policy.plan([OBSERVATION] * 3, [{"task": "lift"}] * 3)
    assert [chunk.shape for chunk in chunks] == [(8, 7)] * 3
    assert chunks[0][0].tolist() == [0.5, 0, 0, 0, 0, 0, -1.0]
    assert own_policies.BatchModel.batches == ([3] if kind == "BatchModel" else [])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("no_such_module:make", "Unknown policy 'no_such_module'.*module:factory, and Python must find"),
        ("own_policies:pusch", "Unknown factory in own_policies 'pusch'.*'push'"),
        ("own_policies:NUMBER", "function or class at own_policies:NUMBER, got 3"),
        (
            "own_policies:push?y=1",
            "Unknown own_policies:push option 'y'. Available: chunk_steps, gripper, label, preset, x",
        ),
        ("own_policies:push?x=far", "own_policies:push option x as float, got 'far'"),
        ("own_policies:ChunkModel", "Can't call own_policies:ChunkModel with no options: missing.*'x'"),
        ("own_policies:number", "policy .* or a function .* from own_policies:number, got 3"),
        ("own_policies:number?preset=openpi", "model with infer from own_policies:number"),
        ("own_policies:push?preset=pi", "Unknown policy preset 'pi'"),
        ("own_policies:push?chunk_steps=2", "chunk_steps beside preset=… only"),
        ("own_policies:large?preset=opnpi", "Unknown policy preset 'opnpi'.*Did you mean 'openpi'"),
        ("own_policies:large?preset=openpi,chunk_steps=0", "chunk_steps"),
        ("own_policies:large?chunk_steps=2", "chunk_steps beside preset=… only"),
        ("lerobot:absent?chunk_steps=0", "chunk_steps"),
    ],
)
def test_what_does_not_fit_is_refused(spec, message):
    with pytest.raises(ConfigError, match=message):
        make_policy(spec)


def test_a_function_that_returns_no_action_is_told():
    policy = make_policy("own_policies:wrong_shape")
    policy.reset(ScriptedEnv())
    with pytest.raises(PolicyError, match=r"finite action of shape \(7,\) from own_policies:wrong_shape"):
        policy.act({}, {})


def test_without_lerobot_the_spec_says_how_to_get_it(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"folder with a lerobot policy's config.json, got 'absent'"):
        make_policy("lerobot:absent")
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(ConfigError, match=r"HF_HUB_OFFLINE is set.*hf download acme/act_libero;"):
        make_policy("lerobot:acme/act_libero")
    (tmp_path / "config.json").write_text('{"type": "act"}')
    if importlib.util.find_spec("lerobot") is None:
        with pytest.raises(
            ImportError, match=r'A lerobot policy needs lerobot. Run: pip install "lerobot>=0.4"'
        ):
            make_policy(f"lerobot:{tmp_path}")
