"""The bound on the card's memory, and sleep: what the GPU itself says."""

import asyncio

import numpy as np
import pytest

from vlac_gym.critic.engines.cuda_memory import cuda_memory_bytes, limit_cuda_memory
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
    from vlac_gym.service.protocol import decode_reply

    spec = f"transformers:{make_tiny_checkpoint(tmp_path / 'tiny')}?out_of_scale=clip,device=cuda"
    frames = random_frames(8, 64, 64)

    async def scenario():
        async with asgi.running(make_critic(spec)) as (client, _):
            before = decode_reply((await asgi.post(client, asgi.request_body(frames))).content).values
            awake = torch.cuda.memory_allocated()
            await client.post("/v1/sleep")
            asleep = torch.cuda.memory_allocated()
            await client.post("/v1/wake")
            after = decode_reply((await asgi.post(client, asgi.request_body(frames))).content).values
            return before, after, awake, asleep

    before, after, awake, asleep = asyncio.run(scenario())
    assert np.array_equal(before, after)
    assert asleep < awake / 4
