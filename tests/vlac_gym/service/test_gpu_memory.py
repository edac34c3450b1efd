"""The bound on the card's memory, and sleep: what the GPU itself says."""

import asyncio
import sys

import numpy as np
import pytest
from serve_process import serving

from vlac_gym.critic.engines.cuda_memory import (
    cuda_memory_bytes,
    cuda_memory_peak_bytes,
    limit_cuda_memory,
    reset_cuda_memory_peak,
)
from vlac_gym.errors import ConfigError


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.1, float("nan")])
def test_fractions_out_of_range_are_refused(fraction):
    with pytest.raises(ConfigError, match="above 0 and at most 1"):
        limit_cuda_memory(fraction)


def test_a_fraction_without_a_gpu_is_refused():
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ConfigError, match="finds no CUDA device"):
        limit_cuda_memory(0.5)
    assert cuda_memory_bytes() == 0.0


class TwoGpus:
    """Stands in for torch: two devices, and what was asked of them."""

    def __init__(self, started=True):
        self.cuda = self
        self.started = started
        self.forgotten = []

    def is_initialized(self):
        return self.started

    def device_count(self):
        return 2

    def max_memory_reserved(self, device):
        return (5, 7)[device]

    def memory_reserved(self, device):
        return (1, 2)[device]

    def reset_peak_memory_stats(self, device):
        self.forgotten.append(device)


def test_the_peak_adds_up_the_devices_and_is_none_where_cuda_never_started(monkeypatch):
    torch = TwoGpus()
    monkeypatch.setitem(sys.modules, "torch", torch)
    reset_cuda_memory_peak()
    assert torch.forgotten == [0, 1]
    assert (cuda_memory_peak_bytes(), cuda_memory_bytes()) == (12.0, 3.0)
    torch.started = False
    reset_cuda_memory_peak()
    assert torch.forgotten == [0, 1]
    assert (cuda_memory_peak_bytes(), cuda_memory_bytes()) == (None, 0.0)
    monkeypatch.delitem(sys.modules, "torch")
    assert cuda_memory_peak_bytes() is None


@pytest.mark.gpu
def test_the_peak_is_what_torch_held_at_most():
    import torch

    torch.empty(1, device="cuda")
    torch.cuda.empty_cache()
    reset_cuda_memory_peak()
    before = cuda_memory_peak_bytes()
    block = torch.empty(2**30, dtype=torch.uint8, device="cuda")
    del block
    torch.cuda.empty_cache()
    assert cuda_memory_peak_bytes() - before == 2**30
    assert cuda_memory_bytes() == before
    reset_cuda_memory_peak()
    assert cuda_memory_peak_bytes() == before


@pytest.mark.gpu
def test_beyond_the_fraction_a_question_fails_and_the_next_one_works(fakes, asgi, random_frames):
    import torch

    class HungryCritic(fakes.BrightnessCritic):
        def success_prob(self, frames, tasks):
            if "fault: hungry" in tasks:
                torch.empty(total // 2, dtype=torch.uint8, device="cuda")
            return super().success_prob(frames, tasks)

    total = torch.cuda.get_device_properties(0).total_memory
    limit_cuda_memory(0.1)
    frames = random_frames(2)

    async def scenario():
        async with asgi.running(HungryCritic()) as (client, _):
            failed = await asgi.post(client, asgi.request_body(frames, task="fault: hungry"))
            return failed, await asgi.post(client, asgi.request_body(frames))

    try:
        failed, after = asyncio.run(scenario())
    finally:
        limit_cuda_memory(1.0)
    assert asgi.reason_of(failed) == (500, "out_of_memory")
    assert after.status_code == 200


@pytest.mark.gpu
def test_sleep_gives_the_cards_memory_back_and_wake_the_same_answers(tmp_path, asgi, random_frames):
    import torch

    from vlac_gym.critic import make_critic
    from vlac_gym.critic.vlac.tiny_checkpoint import make_tiny_checkpoint
    from vlac_gym.service.decoding import decode_reply

    spec = f"transformers:{make_tiny_checkpoint(tmp_path / 'tiny')}?out_of_scale=clip,device=cuda"
    frames = random_frames(8, 64, 64)

    held_by_others = torch.cuda.memory_allocated()

    async def scenario():
        async with asgi.running(make_critic(spec)) as (client, _):
            before = decode_reply((await asgi.post(client, asgi.request_body(frames))).content).numbers
            awake = torch.cuda.memory_allocated()
            await client.post("/v1/sleep")
            asleep = torch.cuda.memory_allocated()
            await client.post("/v1/wake")
            after = decode_reply((await asgi.post(client, asgi.request_body(frames))).content).numbers
            return before, after, awake, asleep

    before, after, awake, asleep = asyncio.run(scenario())
    assert np.array_equal(before, after)
    assert asleep < awake
    # cuBLAS keeps its workspaces for the life of the process: at most 33 MiB for each of the two streams in use.
    assert asleep - held_by_others < 70 * 2**20


@pytest.mark.gpu
def test_a_served_critic_leaves_the_card_to_an_update_and_answers_as_before(connect, random_frames):
    import torch

    from vlac_gym.clone.policy import ClonePolicy

    policy = ClonePolicy(["reach:0"], 4, 64).to("cuda")
    optimizer = torch.optim.Adam(policy.parameters())
    frames = random_frames(8, 128, 128)
    pictures = torch.tensor(np.stack(frames), device="cuda")

    def update():
        cameras = dict.fromkeys(policy.cameras, pictures)
        means, _, values = policy(cameras, torch.zeros(8, 8, device="cuda"), torch.ones(8, 1, device="cuda"))
        optimizer.zero_grad()
        (means.square().mean() + (values - 1.0).square().mean()).backward()
        optimizer.step()
        return torch.cuda.mem_get_info()[0]

    with serving("nano:?device=cuda") as (server,):
        critic = connect(server.url, timeout_s=120)

        def ask():
            checks = critic.success_prob(frames, ["pick up the black bowl"] * len(frames))
            return np.concatenate([checks, critic.value(frames, "pick up the black bowl")])

        before = ask()
        update()  # torch takes its own memory of the card with the first one
        free_awake, held_awake = update(), critic.gpu_memory_bytes()
        critic.sleep()
        weights = critic.server_info()["info"]["details"]["memory_plan"]["weights"]
        assert held_awake - critic.gpu_memory_bytes() >= weights > 15e6
        assert update() - free_awake >= weights
        assert critic.server_info()["state"] == "asleep"
        critic.wake()
        assert critic.gpu_memory_bytes() >= weights
        assert np.array_equal(ask(), before)
