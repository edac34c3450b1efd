"""Fixtures of the engine tests: one tiny checkpoint and one engine on it for the whole session."""

import numpy as np
import pytest

from vlac_gym.critic.engines.base import EngineRequest

SYSTEM = "You are a visual-language assistant."


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory):
    """Directory of a tiny native checkpoint; not to be modified."""
    pytest.importorskip("transformers")
    from vlac_gym.critic.vlac.tiny_checkpoint import make_tiny_checkpoint

    return make_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny")


@pytest.fixture(scope="session")
def shared_engine(tiny_checkpoint):
    """An engine whose caches hold what earlier tests asked; for tests that do not count."""
    from vlac_gym.critic.engines.transformers import TransformersEngine

    engine = TransformersEngine(tiny_checkpoint, device="cpu", image_preparation="pillow")
    yield engine
    engine.close()


@pytest.fixture
def fresh_engine(tiny_checkpoint):
    """An engine with empty caches."""
    from vlac_gym.critic.engines.transformers import TransformersEngine

    engine = TransformersEngine(tiny_checkpoint, device="cpu", image_preparation="pillow")
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def frames():
    """Eight distinct frames of three sizes."""
    rng = np.random.default_rng(7)
    sizes = [(64, 64), (64, 64), (48, 80), (48, 80), (448, 448), (64, 64), (64, 64), (64, 64)]
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


@pytest.fixture(scope="session")
def done():
    """Makes a done check: number answer, no image mark."""
    return lambda frame, task="pick up the bowl": EngineRequest(
        SYSTEM, f"Check if the robot has completed its task: <task> {task} </task> <done>", (frame,), "number"
    )


@pytest.fixture(scope="session")
def pair():
    """Makes a pair, with reference frames before it if given."""

    def build(before, after, references=(), task="pick up the bowl"):
        shown = "".join(f"{i}% <image>\n" for i in range(len(references)))
        prompt = f"{shown}Image-1: <image>\nImage-2: <image>\nThe task is: <task> {task} </task> <score>"
        frames = (*references, before, after)
        return EngineRequest(SYSTEM, prompt, frames, "signed_number", shared_frames=len(references))

    return build


@pytest.fixture(scope="session")
def thought():
    """Makes a request for free text of at most six tokens."""
    return lambda frame: EngineRequest(SYSTEM, "Think first.", (frame,), "text", max_new_tokens=6)
