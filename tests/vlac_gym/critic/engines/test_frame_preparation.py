import numpy as np
import pytest

torch = pytest.importorskip("torch")
Image = pytest.importorskip("PIL.Image")

from vlac_gym.critic.engines.frame_preparation import FramePreparer, lanczos_weights  # noqa: E402


def prepare(frames, mode, mean=(0, 0, 0), std=(1, 1, 1), size=448):
    preparer = FramePreparer(size, mean, std, mode=mode, device=torch.device("cpu"), dtype=torch.float32)
    try:
        return preparer.finish(preparer.begin(frames))
    finally:
        preparer.close()


def noise(*size):
    return np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [(256, 256), (480, 640), (1, 1), (7, 900), (720, 1280), (448, 224)])
def test_device_resize_is_pillows_lanczos_within_a_small_part_of_one_255th(size):
    frame = noise(*size)
    expected = np.asarray(Image.fromarray(frame).resize((448, 448), Image.Resampling.LANCZOS))
    ours = prepare([frame], "device")[0].permute(1, 2, 0).numpy() * 255
    assert np.abs(ours - expected).mean() < 0.01
    assert np.abs(ours - expected).max() <= 2.001  # a tie in each of the two passes


def test_pillow_mode_is_pillow_to_the_bit():
    frame = noise(256, 256)
    expected = np.asarray(Image.fromarray(frame).resize((448, 448), Image.Resampling.LANCZOS))
    ours = prepare([frame], "pillow")[0].permute(1, 2, 0).numpy() * 255
    assert np.array_equal(np.rint(ours).astype(np.uint8), expected)


@pytest.mark.parametrize("mode", ["device", "pillow"])
def test_a_frame_of_the_models_size_is_only_normalised(mode):
    frame = np.zeros((448, 448, 3), np.uint8)
    frame[..., 0], frame[..., 1], frame[..., 2] = 255, 51, 0
    ours = prepare([frame], mode, mean=(0.5, 0.2, 0.4), std=(0.5, 0.1, 0.2))
    assert ours.shape == (1, 3, 448, 448)
    for channel, value in enumerate([1.0, 0.0, -2.0]):  # (1 - .5) / .5, (.2 - .2) / .1, (0 - .4) / .2
        assert torch.allclose(ours[0, channel], torch.tensor(value), atol=1e-6)


def test_frames_of_several_sizes_keep_their_order():
    frames = [
        np.full((*size, 3), value, np.uint8) for size, value in [((8, 8), 10), ((9, 9), 20), ((8, 8), 30)]
    ]
    ours = prepare(frames, "device", size=28)
    assert [round(float(picture.mean()) * 255) for picture in ours] == [10, 20, 30]


def test_frames_are_not_modified_and_may_be_views_and_read_only():
    frame = noise(40, 60)[::2, ::3]
    frame.setflags(write=False)
    before = frame.copy()
    prepare([frame], "device")
    assert np.array_equal(frame, before)


def test_weights_of_one_axis_sum_to_one_and_do_not_change_a_size_that_fits():
    assert np.allclose(lanczos_weights(100, 37).sum(axis=1), 1)
    assert np.allclose(lanczos_weights(5, 5), np.eye(5), atol=1e-7)
