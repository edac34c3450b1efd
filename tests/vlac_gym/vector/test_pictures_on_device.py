"""Observations whose pictures are torch tensors: the same episodes, rule and verdicts as with numpy's."""

from typing import Any

import numpy as np
import pytest

from vlac_gym.critic import make_critic
from vlac_gym.critic.base import BaseCritic
from vlac_gym.critic.signals import signals_of
from vlac_gym.errors import ConfigError
from vlac_gym.frames.on_device import DeviceFrame
from vlac_gym.rollout import AsyncRollout
from vlac_gym.types import CriticInfo
from vlac_gym.vector import RolloutVectorEnv
from vlac_gym.vector.make import make_vec
from vlac_gym.wrappers.vector import ActionChunk, EpisodeVideoWrapper, VLACRewardWrapper

torch = pytest.importorskip("torch")

from tensor_worlds import point_envs  # noqa: E402

IMAGES = ("agentview_image", "wrist_image")
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def build(device: str | None, tasks: Any = ("points",) * 4, **options: Any) -> RolloutVectorEnv:
    fns, mode = point_envs(device, tasks)
    return RolloutVectorEnv(fns, mode=mode, **options)


def on_host(value: Any) -> Any:
    """A nest with arrays in the place of tensors; refuses to find arrays where pictures are."""
    if isinstance(value, dict):
        assert all(isinstance(value[key], torch.Tensor) for key in IMAGES if key in value)
        return {key: on_host(item) for key, item in value.items()}
    if isinstance(value, np.ndarray) and value.dtype == object:
        return [on_host(item) for item in value]
    if isinstance(value, tuple | list):
        return [on_host(item) for item in value]
    return value.cpu().numpy() if isinstance(value, torch.Tensor) else value


def plain(value: Any) -> str:
    """A nest of arrays as text: equal for equal nests, NaNs included."""
    return repr(_listed(value))


def _listed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _listed(item) for key, item in value.items()}
    if isinstance(value, tuple | list) or (isinstance(value, np.ndarray) and value.dtype == object):
        return [_listed(item) for item in value]
    return None if value is None else np.asarray(value).tolist()


def actions_of(rng: np.random.Generator, *shape: int) -> np.ndarray:
    actions = rng.uniform(-0.5, 1.0, (*shape, 7)).astype(np.float32)
    actions[..., 1] = 0.0
    return actions


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("autoreset", ["NextStep", "SameStep", "Disabled"])
def test_steps_return_what_they_return_with_arrays_and_it_stays(device, autoreset):
    tasks = ("cup", "cup", "pen", "cup")  # two groups of worlds, one in another's midst
    tensors, arrays = (build(each, tasks, autoreset_mode=autoreset) for each in (device, None))
    rng = np.random.default_rng(0)
    kept = [(tensors.reset(seed=3), arrays.reset(seed=3))]
    ends = 0
    for _ in range(12):
        actions = actions_of(rng, 4)
        ours, theirs = tensors.step(actions), arrays.step(actions)
        kept.append((ours, theirs))
        over = ours[2] | ours[3]
        ends += int(over.sum())
        if autoreset == "Disabled" and over.any():
            options = {"reset_mask": over}
            kept.append((tensors.reset(options=options), arrays.reset(options=options)))
    assert ends > 4
    for ours, theirs in kept:  # compared at last: nothing may have been drawn over
        assert plain(on_host(ours)) == plain(theirs)
        assert all(ours[0][key].device.type == device for key in IMAGES)


def test_without_copies_the_same_tensor_shows_the_next_step():
    env = build("cpu", copy=False)
    first, _ = env.reset(options={"init_state_id": 0})
    before = first["agentview_image"].clone()
    second = env.step(np.full((4, 7), 0.5, np.float32) * (np.arange(7) != 1))[0]
    assert second["agentview_image"] is first["agentview_image"]
    assert not torch.equal(before, first["agentview_image"])


class ShadeCritic(BaseCritic):
    """Answers by the pictures' shades, and remembers what it was shown."""

    def __init__(self, *, takes_device_frames: bool) -> None:
        self.takes_device_frames = takes_device_frames
        self.shown: list[Any] = []

    def success_prob(self, frames, tasks):
        return np.minimum(self._shades(frames) * 2.5, 1.0)

    def progress(self, before, after, tasks, references=None):
        return self._shades(after) - self._shades(before)

    def value(self, frames, task, references=None):
        return np.cumsum(self._shades(frames)) / 10

    def describe(self):
        return CriticInfo("shades")

    def _shades(self, frames):
        self.shown += frames
        return np.array([np.asarray(frame)[0, 0, 0] / 255 for frame in frames], np.float32)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("takes", [True, False])
@pytest.mark.parametrize("rule", [{}, {"preset": "dense"}, {"preset": "evolve", "milestone_interval": 2}])
def test_the_rule_pays_what_it_pays_with_arrays_and_critics_get_what_they_take(device, takes, rule):
    options = {"done_interval": 2, "value_stride": 1, "max_episode_steps": 6} | rule
    critics = [ShadeCritic(takes_device_frames=takes) for _ in range(2)]
    ours, theirs = (
        ActionChunk(VLACRewardWrapper(build(each, autoreset_mode="SameStep"), critic, **options), 3)
        for each, critic in zip((device, None), critics, strict=True)
    )
    rng = np.random.default_rng(1)
    assert plain(on_host(ours.reset(seed=1))) == plain(theirs.reset(seed=1))
    paid = 0.0
    for _ in range(8):
        actions = actions_of(rng, 4, 3)
        mine, other = ours.step(actions), theirs.step(actions)
        assert plain(on_host(mine)) == plain(other)
        paid += float(mine[1].sum())
    assert paid > 0
    assert {type(frame) for frame in critics[0].shown} == {DeviceFrame if takes else np.ndarray}
    assert {type(frame) for frame in critics[1].shown} == {np.ndarray}


class PrivilegedShades(ShadeCritic):
    def describe(self):
        return CriticInfo("shades", is_privileged=True)


def test_a_privileged_critic_gets_signals_with_pictures_that_it_would_take_from_a_device():
    critic = PrivilegedShades(takes_device_frames=True)
    env = VLACRewardWrapper(build("cpu"), critic)
    env.reset(seed=0)
    env.step(np.zeros((4, 7), np.float32))
    assert [signals_of(frame, "shades").number for frame in critic.shown] == [1] * 4


@pytest.mark.parametrize("device", DEVICES)
def test_nano_judges_on_the_device_what_it_judges_of_arrays_and_downloads_no_frame(device, monkeypatch):
    pytest.importorskip("transformers")
    spec = f"nano?device={device},dtype=float32"

    def refuse(self: DeviceFrame, dtype: Any = None, copy: Any = None) -> Any:
        raise AssertionError("a frame was downloaded")

    def play(where: str | None) -> Any:
        options = {
            "done_interval": 2,
            "value_stride": 2,
            "max_episode_steps": 4,
            "on_critic_mismatch": "warn",
        }
        env = ActionChunk(VLACRewardWrapper(build(where), make_critic(spec), **options), 4)
        env.reset(options={"init_state_id": [0, 1, 2, 2]})
        steps = [env.step(np.full((4, 4, 7), 0.1, np.float32))]
        env.close()
        return steps[0]

    theirs = play(None)
    monkeypatch.setattr(DeviceFrame, "__array__", refuse)
    ours = play(device)
    assert ours[1] == pytest.approx(theirs[1], abs=1e-5)
    assert plain(ours[4]["critic"]["value_frame_steps"]) == plain(theirs[4]["critic"]["value_frame_steps"])
    for mine, other in zip(ours[4]["critic"]["values"], theirs[4]["critic"]["values"], strict=True):
        assert len(mine) == 3
        assert mine == pytest.approx(other, abs=1e-5)


@pytest.mark.gpu
def test_a_caller_in_a_stream_of_its_own_sees_whole_pictures():
    arrays, tensors = build(None, autoreset_mode="SameStep"), build("cuda", autoreset_mode="SameStep")
    rng = np.random.default_rng(2)
    kept = [(tensors.reset(seed=0), arrays.reset(seed=0))]
    with torch.cuda.stream(torch.cuda.Stream()):
        for _ in range(20):
            actions = actions_of(rng, 4)
            kept.append((tensors.step(actions), arrays.step(actions)))
        assert [plain(on_host(ours)) for ours, _ in kept] == [plain(theirs) for _, theirs in kept]


def test_a_rollout_gives_its_policy_tensors_and_keeps_what_it_observed():
    def policy(observations: Any, rows: Any) -> np.ndarray:
        on_host(observations)
        shade = np.asarray(observations["agentview_image"][:, 0, 0, 0], np.float32)
        actions = np.zeros((len(rows), 7), np.float32)
        actions[:, 0] = 0.5 - shade / 255
        return actions

    def play(device: str | None, check: Any) -> list[Any]:
        env = build(device, autoreset_mode="Disabled")
        return [
            (check(episode.observations), episode.rewards.tolist(), plain(episode.infos))
            for episode in AsyncRollout(
                env, policy if device else lambda o, r: policy_of_arrays(o, r)
            ).episodes(6)
        ]

    def policy_of_arrays(observations: Any, rows: Any) -> np.ndarray:
        tensors = {key: torch.from_numpy(value) for key, value in observations.items()}
        return policy(tensors, rows)

    ours = play("cpu", lambda observations: plain(on_host(observations)))
    assert ours == play(None, plain)
    assert len(ours[0][0]) > 2


def test_a_video_shows_them(tmp_path):
    pytest.importorskip("matplotlib")
    pytest.importorskip("imageio_ffmpeg")
    env = EpisodeVideoWrapper(build("cpu", autoreset_mode="SameStep"), tmp_path)
    env.reset(seed=0)
    for _ in range(6):
        env.step(np.full((4, 7), 0.4, np.float32))
    env.close()
    assert list(tmp_path.rglob("*.raw.mp4"))


def test_other_kinds_of_pictures_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="kind of pictures 'pytorch'"):
        make_vec("libero_spatial", 0, 2, backend="warp", scenes=tmp_path, pictures="pytorch")


def test_pictures_of_another_backend_are_refused_by_name():
    with pytest.raises(ConfigError, match="Expected pictures with backend='warp' only"):
        make_vec("libero_spatial", 0, 2, pictures="torch")
