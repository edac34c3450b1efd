"""Spec strings of the VLAC engines, against stand-in engine classes."""

import sys
import types

import numpy as np
import pytest

from vlac_gym.critic.engines.scripted import ScriptedEngine
from vlac_gym.critic.registry import check_critic, make_critic
from vlac_gym.errors import ConfigError, CriticServerError
from vlac_gym.types import CriticKnowledge

FRAME = np.zeros((4, 4, 3), np.uint8)


class StandIn(ScriptedEngine):
    """Takes what the real constructors take and remembers it."""

    def __init__(
        self,
        target,
        device: str | None = None,
        dtype: str | None = None,
        max_gpu_memory_gb: float | None = None,
    ):
        super().__init__(["1"])
        self.given = {
            "target": target,
            "device": device,
            "dtype": dtype,
            "max_gpu_memory_gb": max_gpu_memory_gb,
        }

    def describe(self):
        return {"name": "stand-in", **self.given}


class StandInServer(ScriptedEngine):
    def __init__(self, base_url, model, *, timeout_s: float = 30.0):
        super().__init__(["1"])
        self.given = {"base_url": base_url, "served": model, "timeout_s": timeout_s}

    def describe(self):
        return {"name": "stand-in", **self.given}


@pytest.fixture(autouse=True)
def stand_in_engines(monkeypatch):
    for name, attribute, engine in (
        ("transformers", "TransformersEngine", StandIn),
        ("swift", "SwiftEngine", StandIn),
        ("openai", "OpenAIEngine", StandInServer),
    ):
        module = types.ModuleType(f"vlac_gym.critic.engines.{name}")
        setattr(module, attribute, engine)
        monkeypatch.setitem(sys.modules, module.__name__, module)


@pytest.mark.parametrize("name", ["transformers", "swift"])
def test_path_reaches_the_engine(name):
    critic = make_critic(f"{name}:/checkpoints/vlac-2b")
    assert critic.describe().details["target"] == "/checkpoints/vlac-2b"
    assert critic.success_prob([FRAME], ["open the drawer"]).tolist() == [1.0]


def test_options_go_to_engine_config_and_pictures():
    critic = make_critic(
        "transformers:ckpt", device="cuda:1", reading="exact", references=[FRAME] * 3, goal_image=FRAME
    )
    details = critic.describe().details
    assert critic.describe().device == "cuda:1"
    assert (details["reading"], details["num_references"], details["has_goal_image"]) == ("exact", 3, True)


def test_options_can_stand_in_the_spec():
    critic = make_critic(
        "transformers:ckpt?device=cuda:0,max_gpu_memory_gb=12,reading=plain", out_of_scale="clip"
    )
    info = critic.describe()
    assert (info.device, info.details["max_gpu_memory_gb"], info.details["reading"]) == (
        "cuda:0",
        12.0,
        "plain",
    )
    assert critic.config.out_of_scale == "clip"


@pytest.mark.parametrize(
    ("spec", "options", "warmed"),
    [
        ("transformers:ckpt?warm_up=true", {}, 2),
        ("transformers:ckpt", {"warm_up": True}, 2),
        ("swift:ckpt?warm_up=false", {}, 0),
        ("transformers:ckpt", {}, 0),
        ("openai:http://host:8000/v1#org/vlac-2b?warm_up=true", {}, 0),  # an engine with nothing to prepare
    ],
)
def test_a_spec_says_whether_to_warm_up(monkeypatch, spec, options, warmed):
    examples = []
    monkeypatch.setattr(StandIn, "warm_up", lambda self, asked: examples.extend(asked), raising=False)
    check_critic(spec)
    make_critic(spec, **options)
    assert sum(example.answer == "number" for example in examples) == warmed


def test_a_word_for_warm_up_is_refused_before_anything_is_loaded(monkeypatch):
    made = []
    monkeypatch.setattr(ScriptedEngine, "__init__", lambda self, script: made.append(self))
    with pytest.raises(ConfigError, match="warm_up as true or false, got 'yes'"):
        make_critic("transformers:ckpt", warm_up="yes")
    assert not made


def test_a_warm_up_that_fails_closes_what_was_loaded(monkeypatch):
    closed = []

    def no_room(self, asked):
        raise CriticServerError("Out of memory.")

    monkeypatch.setattr(StandIn, "warm_up", no_room, raising=False)
    monkeypatch.setattr(StandIn, "close", lambda self: closed.append(self))
    with pytest.raises(CriticServerError, match="Out of memory"):
        make_critic("transformers:ckpt?warm_up=true")
    assert len(closed) == 1


def test_existing_path_with_a_question_mark_is_taken_whole(tmp_path):
    path = tmp_path / "why?reading=plain"
    path.mkdir()
    critic = make_critic(f"transformers:{path}")
    assert critic.describe().details["target"] == str(path)
    assert critic.config.reading == "rich"


def test_openai_takes_url_and_model():
    details = make_critic("openai:http://host:8000/v1#org/vlac-2b?timeout_s=5").describe().details
    assert details["base_url"] == "http://host:8000/v1"
    assert details["served"] == "org/vlac-2b"
    assert details["timeout_s"] == 5.0


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("transformers:", "Expected a spec transformers:PATH, got nothing"),
        ("swift", "Expected a spec swift:PATH, got nothing"),
        ("openai:http://host:8000/v1", "openai:URL#MODEL"),
        ("openai:host#model", "openai:URL#MODEL"),
        ("openai:http://host#", "openai:URL#MODEL"),
        ("transformers:ckpt?divice=cpu", "'divice'.*Did you mean 'device'"),
        ("transformers:ckpt?reading=poor", "Unknown reading 'poor'"),
        ("transformers:ckpt?timeout_s=3", "Unknown transformers:PATH option 'timeout_s'"),
    ],
)
def test_bad_spec_is_refused(spec, message):
    with pytest.raises(ConfigError, match=message):
        make_critic(spec)


def test_unknown_option_lists_the_known():
    with pytest.raises(
        ConfigError, match=r"option 'divice'. Available: .*device.*reading.*references.*Did you mean"
    ):
        make_critic("transformers:ckpt", divice="cpu")


def test_option_given_twice_is_refused():
    with pytest.raises(ConfigError, match="'reading' is given in the spec and as a keyword"):
        make_critic("transformers:ckpt?reading=plain", reading="rich")


def test_bad_references_are_refused_before_anything_is_loaded(monkeypatch):
    monkeypatch.setitem(sys.modules, "vlac_gym.critic.engines.transformers", None)
    with pytest.raises(ConfigError, match="2 to 11 reference frames, got 1"):
        make_critic("transformers:ckpt", references=[FRAME])


@pytest.mark.parametrize("engine", ["transformers", "swift"])
def test_a_checkpoints_folder_says_what_the_critic_knows(engine, tmp_path):
    assert make_critic(f"{engine}:{tmp_path}").describe().knows == CriticKnowledge()
    (tmp_path / "knowledge.json").write_text('{"tasks": ["open the drawer"], "inputs": []}')
    said = CriticKnowledge(tasks=("open the drawer",), inputs=())
    assert make_critic(f"{engine}:{tmp_path}").describe().knows == said
    told = CriticKnowledge(views=("wrist",))
    assert make_critic(f"{engine}:{tmp_path}", knows=told).describe().knows == told


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "Expected JSON in"), ("[]", "Expected a JSON object"), ('{"task": []}', "Unknown field in")],
)
def test_a_malformed_knowledge_file_is_refused(text, message, tmp_path):
    (tmp_path / "knowledge.json").write_text(text)
    with pytest.raises(ConfigError, match=message):
        make_critic(f"transformers:{tmp_path}")


def test_a_served_models_knowledge_can_be_told():
    told = CriticKnowledge(tasks=("open the drawer",))
    assert make_critic("openai:http://host:8000/v1#vlac", knows=told).describe().knows == told
