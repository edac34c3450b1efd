"""A frame on a device is, to whoever reads its pixels, the frame that it is in numpy."""

import pickle
from contextlib import contextmanager
from copy import deepcopy
from types import SimpleNamespace

import numpy as np
import pytest

from vlac_gym.critic.engines.scripted import ScriptedEngine
from vlac_gym.critic.ensemble import EnsembleCritic
from vlac_gym.critic.failover import FailoverCritic
from vlac_gym.critic.failure_policy import CriticFailurePolicy
from vlac_gym.critic.random import RandomCritic
from vlac_gym.critic.recorded import RecordedCritic, ReplayedCritic
from vlac_gym.critic.scripted import ScriptedCritic
from vlac_gym.critic.vlac.critic import VLACCritic
from vlac_gym.critic.wrapper import CriticWrapper
from vlac_gym.envs.scripted import ScriptedEnv
from vlac_gym.errors import ConfigError
from vlac_gym.frames.checks import check_frame, frame_digest, frame_key
from vlac_gym.frames.codec import decode_frame, encode_frame, png_data_url
from vlac_gym.frames.on_device import DeviceFrame, stacked, torch_stream, wait_for_torch
from vlac_gym.rule.frame_buffer import FrameBuffer
from vlac_gym.service import frame_codec
from vlac_gym.stepping.frame_source import FrameReader

torch = pytest.importorskip("torch")


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (8, 6, 3), dtype=np.uint8)


@pytest.fixture
def frame(picture) -> DeviceFrame:
    return DeviceFrame(torch.from_numpy(picture.copy()))


def test_it_has_what_is_asked_of_a_frame(picture, frame):
    check_frame(frame)
    assert (frame.shape, frame.ndim, frame.dtype, len(frame), frame.nbytes) == (
        (8, 6, 3),
        3,
        np.uint8,
        8,
        144,
    )
    assert np.array_equal(frame, picture)
    assert np.asarray(frame, np.float32).dtype == np.float32
    copied = np.array(frame)
    copied[:] = 0
    assert np.array_equal(frame, picture)


@pytest.mark.parametrize(
    ("tensor", "text"),
    [
        (torch.zeros(3, 8, 6, dtype=torch.uint8), r"uint8 \(3, 8, 6\)"),
        (torch.zeros(8, 6, 3), r"float32 \(8, 6, 3\)"),
        (torch.zeros(8, 6, dtype=torch.uint8), r"uint8 \(8, 6\)"),
        (torch.zeros(8, 6, 3, dtype=torch.bfloat16), r"torch.bfloat16 \(8, 6, 3\)"),
    ],
)
def test_another_tensor_is_refused_as_an_array_is(tensor, text):
    with pytest.raises(ConfigError, match=text):
        check_frame(DeviceFrame(tensor))


def test_digest_and_compressed_forms_are_those_of_the_picture(picture, frame):
    assert frame_digest(frame) == frame_digest(picture)
    assert np.array_equal(decode_frame(encode_frame(frame, "png")), picture)
    assert png_data_url(frame, 4) == png_data_url(picture, 4)
    for encoding in ("raw", "png"):
        sent = frame_codec.encode_frame(frame, encoding)
        assert np.array_equal(frame_codec.decode_frame(frame_digest(frame), sent), picture)


def test_its_key_is_its_own_and_costs_no_download(picture, frame, monkeypatch):
    twin = DeviceFrame(frame.tensor)
    monkeypatch.setattr(DeviceFrame, "__array__", None)
    assert frame_key(frame) == frame_key(frame)
    assert len({frame_key(frame), frame_key(twin), frame_key(picture)}) == 3
    assert frame_key(picture) == frame_digest(picture)


@pytest.mark.parametrize("again", [lambda frame: pickle.loads(pickle.dumps(frame)), deepcopy])
def test_a_copy_of_it_has_a_key_of_its_own(picture, frame, again):
    # In another process the number may be another frame's.
    copied = again(frame)
    assert np.array_equal(copied, picture)
    assert frame_key(copied) != frame_key(frame)


def test_a_copy_keeps_nothing_else_alive():
    batch = torch.arange(3 * 4 * 4 * 3, dtype=torch.uint8).view(3, 4, 4, 3)
    copy = DeviceFrame.copy_of(batch[1])
    before = np.array(copy)
    batch.zero_()
    assert np.array_equal(copy, before)
    assert copy.tensor.untyped_storage().nbytes() == copy.nbytes == 48


def test_the_rules_buffer_keeps_it_where_it_is(frame):
    buffer = FrameBuffer(1000, 1)
    buffer.keep(0, frame)
    assert buffer.last is frame
    assert buffer.num_bytes == 144


def test_it_judges_as_the_picture_does_with_a_critic_that_goes_by_digests(picture, frame):
    critic = RandomCritic(0)
    assert critic.success_prob([frame], ["t"]).tolist() == critic.success_prob([picture], ["t"]).tolist()


def test_a_record_of_it_answers_for_the_picture(picture, frame, tmp_path):
    path = tmp_path / "critic.jsonl"
    recorded = RecordedCritic(ScriptedCritic([0.25]), path, frames=tmp_path / "frames")
    assert recorded.takes_device_frames
    recorded.success_prob([frame], ["t"])
    recorded.close()
    assert ReplayedCritic(path).success_prob([picture], ["t"]).tolist() == [0.25]


def test_vlac_may_be_shown_it_as_reference_and_as_goal(picture, frame):
    engine = ScriptedEngine(["1", "+10"])
    critic = VLACCritic(engine, references=[frame, frame], goal_image=frame)
    critic.success_prob([picture], ["t"])
    critic.value([picture, picture], "t")
    shown = [engine.requests[0].frames[0], *engine.requests[1].frames[:2]]
    assert all(np.array_equal(each, picture) for each in shown)


@pytest.mark.parametrize("read", [FrameReader.read, FrameReader.take])
@pytest.mark.parametrize(
    ("given", "text"),
    [
        (None, r"as a uint8 \(H, W, 3\) array, got NoneType"),
        ([[1, 2], [3]], r"as a uint8 \(H, W, 3\) array, got list"),
        (
            torch.zeros(8, 6, 3, dtype=torch.bfloat16),
            r"as uint8 \(H, W, 3\) with H, W >= 1, got torch.bfloat16",
        ),
    ],
)
def test_what_a_frame_function_gives_instead_is_named(read, given, text):
    env = ScriptedEnv()
    with pytest.raises(ConfigError, match=f"Expected the frame function's result {text}"):
        read(FrameReader(env, lambda observation, info: given), env, None, {})


class PixelReader(CriticWrapper):
    takes_device_frames = False


class FakeCuda:
    """torch's streams by name: which is current, and who waits for whom."""

    def __init__(self, current: str) -> None:
        self.current, self.log = current, []

    def current_stream(self, device):
        return FakeStream(self, self.current)

    def default_stream(self, device):
        return FakeStream(self, "default")

    @contextmanager
    def stream(self, stream):
        before, self.current = self.current, stream.name
        yield
        self.current = before


class FakeStream:
    def __init__(self, cuda: FakeCuda, name: str) -> None:
        self.cuda, self.name = cuda, name

    def __eq__(self, other):
        return self.name == other.name

    def wait_stream(self, other):
        self.cuda.log.append(f"{self.name} waits for {other.name}")

    def synchronize(self):
        self.cuda.log.append(f"the host waits for {self.name}")


@pytest.mark.parametrize(
    ("current", "waits"),
    [("default", []), ("own", ["default waits for own", "in default", "own waits for default"])],
)
def test_work_on_pictures_is_queued_in_one_stream_between_what_the_caller_queues(monkeypatch, current, waits):
    cuda = FakeCuda(current)
    monkeypatch.setattr("vlac_gym.frames.on_device._torch", lambda: SimpleNamespace(cuda=cuda))
    device = SimpleNamespace(type="cuda")
    with torch_stream(device):
        if cuda.current != current:
            cuda.log.append(f"in {cuda.current}")
    assert (cuda.current, cuda.log) == (current, waits)
    wait_for_torch(device)
    assert cuda.log == [*waits, "the host waits for default"]


def test_critics_say_whether_they_take_it():
    taking, other = ScriptedCritic(), RandomCritic(0)
    assert CriticWrapper(taking).takes_device_frames
    assert not CriticWrapper(other).takes_device_frames
    assert not PixelReader(taking).takes_device_frames
    assert FailoverCritic(taking, CriticFailurePolicy(retries=1)).takes_device_frames
    with_fallback = CriticFailurePolicy(fallbacks=("random",), allow_other_critic=True)
    assert not FailoverCritic(taking, with_fallback).takes_device_frames
    assert not EnsembleCritic([taking, ScriptedCritic()]).takes_device_frames


def test_stacks_are_of_their_parts_kind(picture):
    tensors = stacked([torch.from_numpy(picture)] * 2)
    assert isinstance(tensors, torch.Tensor)
    assert np.array_equal(tensors, stacked([picture] * 2))
