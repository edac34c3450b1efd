"""The whole way: spec -> checkpoint on disk -> prompts -> real forward passes -> numbers, on a tiny model."""

import json
from dataclasses import fields

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch", reason="the transformers engine needs torch")
pytest.importorskip("transformers", reason="the transformers engine needs transformers")

from vlac_gym.cli import main
from vlac_gym.critic import make_critic
from vlac_gym.critic.engines.openai import OpenAIEngine
from vlac_gym.critic.engines.swift import SwiftEngine
from vlac_gym.critic.engines.transformers import TransformersEngine
from vlac_gym.critic.vlac.critic import VLACConfig, VLACCritic
from vlac_gym.critic.vlac.factories import spec_options
from vlac_gym.critic.vlac.tiny_checkpoint import make_tiny_checkpoint
from vlac_gym.errors import ConfigError, CriticError, CriticResponseError
from vlac_gym.specs.options import parameter_hints

TASK = "put the bowl on the plate"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny")


@pytest.fixture(scope="module")
def critic(checkpoint):
    made = make_critic(f"transformers:{checkpoint}?device=cpu,reading=plain,out_of_scale=clip")
    yield made
    made.close()


@pytest.fixture
def frames():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (64, 80, 3), np.uint8) for _ in range(4)]


def test_spec_gives_a_critic_that_names_its_checkpoint(critic, checkpoint):
    info = critic.describe()
    assert (info.name, info.model, info.device) == ("transformers", str(checkpoint), "cpu")
    assert info.prompt_version == "vlac-v3"
    assert not info.is_privileged


def test_answers_are_in_range_and_repeatable(critic, frames):
    before = [frame.copy() for frame in frames]
    probs = critic.success_prob(frames, [TASK] * 4)
    progress = critic.progress(frames[:3], frames[1:], [TASK] * 3)
    values = critic.value(frames, TASK)
    assert (probs.shape, progress.shape, values.shape) == ((4,), (3,), (4,))
    assert probs.dtype == progress.dtype == values.dtype == np.float32
    assert ((probs >= 0) & (probs <= 1)).all()
    assert ((progress >= -1) & (progress <= 1)).all()
    assert values[0] == 0
    assert ((values >= 0) & (values <= 1)).all()
    np.testing.assert_array_equal(critic.success_prob(frames, [TASK] * 4), probs)
    np.testing.assert_array_equal(critic.progress(frames[:3], frames[1:], [TASK] * 3), progress)
    np.testing.assert_array_equal(critic.value(frames, TASK), values)
    assert all((frame == copy).all() for frame, copy in zip(frames, before))


def test_references_change_the_question(critic, frames):
    judged = [
        critic.judge_episode(frames, TASK, references).progress
        for references in (None, frames[:2], frames[::-1])
    ]
    assert not np.array_equal(judged[0], judged[1])
    assert not np.array_equal(judged[1], judged[2])


def test_value_after_done_checks_encodes_no_frame_again(checkpoint, frames):
    engine = TransformersEngine(checkpoint, device="cpu")
    critic = VLACCritic(engine, VLACConfig(reading="plain", out_of_scale="clip"))
    critic.success_prob(frames, [TASK] * 4)
    assert engine.statistics().frames_encoded == 4
    critic.value(frames, TASK)
    assert engine.statistics().frames_encoded == 4
    critic.value(frames, TASK, references=frames[:2])
    assert engine.statistics().frames_encoded == 4
    critic.close()


def test_random_weights_are_told_from_a_trained_critic(checkpoint, frames):
    critic = make_critic(f"transformers:{checkpoint}", device="cpu", reading="plain")
    with pytest.raises(CriticResponseError, match=r"Expected 0 or 1 .* Is the checkpoint a trained VLAC\?"):
        critic.success_prob(frames, [TASK] * 4)
    critic.close()


def test_sleeping_critic_answers_again_after_waking(critic, frames):
    awake = critic.success_prob(frames[:1], [TASK])
    critic.sleep()
    with pytest.raises(CriticError, match="asleep"):
        critic.success_prob(frames[:1], [TASK])
    critic.wake()
    np.testing.assert_array_equal(critic.success_prob(frames[:1], [TASK]), awake)


@pytest.mark.parametrize(
    "spec", ["transformers:{0}/absent", "transformers:{0}/notes.txt", "transformers:{0}"]
)
def test_path_that_is_no_checkpoint_is_refused(spec, tmp_path):
    (tmp_path / "notes.txt").write_text("no checkpoint")
    with pytest.raises(ConfigError):
        make_critic(spec.format(tmp_path))


@pytest.mark.parametrize(
    ("engine", "some"),
    [
        (TransformersEngine, {"dtype": str, "max_gpu_memory_gb": float, "image_preparation": str}),
        (SwiftEngine, {"device": str, "max_batch_size": int}),
        (OpenAIEngine, {"timeout_s": float, "max_concurrency": int}),
    ],
)
def test_spec_options_are_those_of_config_and_engine_and_never_keys_or_code(engine, some):
    options = spec_options(engine)
    own = {"reading": str, "thinking": bool, "max_thinking_tokens": int, "unfinished_value_limit": float}
    assert options.items() >= (some | own | {"warm_up": bool}).items()
    assert options.keys() <= parameter_hints(engine).keys() | {f.name for f in fields(VLACConfig)} | {
        "warm_up"
    }
    assert not options.keys() & {"api_key", "allow_remote_code", "path", "model", "extra_body", "transport"}


def test_openai_spec_builds_the_engine_and_connects_to_nothing():
    critic = make_critic("openai:http://127.0.0.1:9/v1#vlac-2b?timeout_s=5", reading="plain")
    info = critic.describe()
    assert info.name == "openai"
    assert "vlac-2b" in info.model
    critic.close()


def test_score_command_runs_on_a_checkpoint(checkpoint, frames, tmp_path):
    episode = tmp_path / "episode"
    episode.mkdir()
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(episode / f"{number}.png")
    command = ["score", str(episode), "--task", TASK, "--out", str(tmp_path / "out"), "--value-stride", "1"]
    command += ["--reference", str(episode), "--reference-count", "2", "--no-video"]
    spec = f"transformers:{checkpoint}?device=cpu,reading=plain,out_of_scale=clip"
    assert main([*command, "--critic", spec]) == 0
    document = json.loads((tmp_path / "out" / "score.json").read_text())
    direct = make_critic(spec)
    np.testing.assert_allclose(
        [row["progress"] for row in document["progress"]],
        direct.progress(frames[:3], frames[1:], [TASK] * 3, [frames[0], frames[3]], starts=[frames[0]] * 3),
    )
    assert len(document["success_prob"]) == 4
    assert document["critic"]["model"] == str(checkpoint)
    direct.close()
