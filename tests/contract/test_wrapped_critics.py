"""A critic inside another answers everywhere that takes critics as it does alone, privileged ones included."""

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wrapped_critics
from recorded_bank import record
from vector_envs import ShadedEnv
from wrapped_vector_envs import actions, build

from verl_env_adapter.common.env_pool import EnvPool
from verl_env_adapter.common.settings import parse_settings
from vlac_gym.attack.judging import pay_episode
from vlac_gym.critic import make_critic
from vlac_gym.critic.base import Critic, frame_digest
from vlac_gym.data import EpisodeDataset
from vlac_gym.report_card.asking import AskedCritic
from vlac_gym.report_card.card import CardConfig, make_card
from vlac_gym.rule.episode_score import score_episode
from vlac_gym.rule.reward import training_rule
from vlac_gym.service.app import create_app
from vlac_gym.service.core import CriticService, ServiceConfig
from vlac_gym.service.frame_codec import encode_frame
from vlac_gym.service.messages import pack, unpack
from vlac_gym.service.protocol import Pixels, SuccessProbRequest
from vlac_gym.wrappers import VLACRewardWrapper

PRIVILEGED = "noisy_oracle:tpr=0.6,fpr=0.1,seed=2"
BY_PICTURES = "random:done_rate=0.2"
WRAPPED = sorted(wrapped_critics.AROUND.keys() - {"nothing"})
ENV_FNS = [partial(ShadedEnv, shade=i, max_episode_steps=6, success_steps=[3 + i]) for i in range(2)]
FRAMES = [np.full((4, 4, 3), level, np.uint8) for level in (0, 90, 180, 250)]


def one_env(critic: Critic, preset: str) -> Any:
    env = VLACRewardWrapper(ENV_FNS[0](), critic, preset=preset, value_stride=2)
    told = []
    for episode in range(3):
        env.reset(seed=episode)
        over = False
        while not over:
            _, reward, terminated, truncated, info = env.step(actions(1)[0])
            told.append((reward, terminated, truncated, info["critic"]))
            over = terminated or truncated
    return told


def many_envs(critic: Critic, preset: str) -> Any:
    env = build(ENV_FNS, critic, preset=preset, value_stride=2)
    env.reset(seed=0)
    return [[*map(np.copy, env.step(actions(2))[1:4])] for _ in range(12)]


def envs_at_their_own_pace(critic: Critic, preset: str) -> Any:
    env = build(ENV_FNS, critic, "Disabled", preset=preset, value_stride=2)
    env.reset(seed=0)
    told: dict[int, list] = {0: [], 1: []}
    running = {0, 1}
    env.send(actions(2), [0, 1])
    while running:
        result = env.recv()
        for row, i in enumerate(result.env_ids.tolist()):
            over = bool(result.terminations[row] or result.truncations[row])
            told[i].append((float(result.rewards[row]), over))
            if over:
                running.remove(i)
            else:
                env.send(actions(1), [i])
    env.close()
    return told


def adapters(around: str, preset: str) -> Any:
    block = {
        "env": {"id": "scripted_ids:Scripted-v0", "kwargs": {"success_steps": [5]}, "max_episode_steps": 8},
        "critic": {"spec": f"wrapped_critics:make?around={around},inner=oracle"},
        "rule": {"preset": preset},
    }
    pool = EnvPool(parse_settings(block), 2)
    pool.reset(mode="train")
    batches = [pool.step_chunk(np.zeros((2, 4, 7), np.float32)) for _ in range(2)]
    pool.close()
    return [(batch.rewards.tolist(), batch.terminated.tolist()) for batch in batches]


def server(critic: Critic) -> bytes:
    async def ask() -> bytes:
        import httpx

        service = CriticService(lambda: critic, ServiceConfig())
        app = create_app(service)
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://s") as client,
        ):
            while service.batcher.state == "loading":
                await asyncio.sleep(0.001)
            digests = tuple(map(frame_digest, FRAMES))
            pixels = Pixels.of({i: encode_frame(frame) for i, frame in enumerate(FRAMES)})
            places, tasks = tuple(range(len(FRAMES))), ("t",) * len(FRAMES)
            reply = await client.post(
                "/v1/success_prob",
                content=pack(SuccessProbRequest(5000, digests, pixels, places, tasks)),
                headers={"content-type": "application/msgpack", "accept": "application/msgpack"},
            )
            assert reply.status_code == 200, reply.content
            return unpack(reply.content)["values"]

    return asyncio.run(ask())


def score(critic: Critic) -> Any:
    return score_episode(critic, FRAMES, "stack", value_stride=2).as_json()


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> EpisodeDataset:
    root: Path = tmp_path_factory.mktemp("recordings")
    for start in range(2):
        record(root, 0, start, succeeds=True)
        record(root, 0, start, succeeds=False, kind="stop")
    return EpisodeDataset.open(root)


def inside(around: str, spec: str) -> Critic:
    return wrapped_critics.make(around, spec)


@pytest.mark.parametrize("preset", ["vlac", "pbrs", "evolve"])
@pytest.mark.parametrize("play", [one_env, many_envs, envs_at_their_own_pace])
@pytest.mark.parametrize("spec", [PRIVILEGED, BY_PICTURES])
@pytest.mark.parametrize("around", WRAPPED)
def test_the_reward_wrappers_pay_the_same(around: str, spec: str, play: Callable, preset: str) -> None:
    np.testing.assert_equal(play(inside(around, spec), preset), play(make_critic(spec), preset))


@pytest.mark.parametrize("preset", ["vlac", "dense"])
@pytest.mark.parametrize("around", WRAPPED)
def test_the_adapters_pay_the_same(around: str, preset: str) -> None:
    expected = adapters("nothing", preset)
    assert np.any(expected[1][1])
    assert adapters(around, preset) == expected


@pytest.mark.parametrize("ask", [server, score])
@pytest.mark.parametrize("around", WRAPPED)
def test_a_server_and_a_score_say_the_same(around: str, ask: Callable) -> None:
    assert ask(inside(around, BY_PICTURES)) == ask(make_critic(BY_PICTURES))


@pytest.mark.parametrize("spec", [PRIVILEGED, BY_PICTURES])
@pytest.mark.parametrize("around", WRAPPED)
def test_the_report_card_and_an_attack_measure_the_same(
    around: str, spec: str, recordings: EpisodeDataset
) -> None:
    config = CardConfig(resamples=10, probe_episodes=1)

    def measured(critic: Critic) -> Any:
        content = make_card(critic, spec, recordings, config).content
        return {key: content[key] for key in ("headline", "calibration")}, content["sections"]["detection"]

    def paid(critic: Critic) -> Any:
        rule = training_rule("vlac", done_interval=2)
        return [pay_episode(AskedCritic(critic, 8), e, rule, index=i) for i, e in enumerate(recordings)]

    np.testing.assert_equal(measured(inside(around, spec)), measured(make_critic(spec)))
    assert paid(inside(around, spec)) == paid(make_critic(spec))
