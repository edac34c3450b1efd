"""A server's critic recorded, and replayed by another server."""

from vlac_gym.critic.random import RandomCritic
from vlac_gym.critic.recorded import RecordedCritic, ReplayedCritic


async def _ask(asgi, critic, body):
    async with asgi.running(critic) as (client, service):
        return (await asgi.post(client, body)).content, service.critic_id


def test_a_replaying_server_gives_the_recorded_servers_answers(tmp_path, asgi, random_frames):
    import asyncio

    from vlac_gym.service.messages import unpack

    path, body = tmp_path / "critic.jsonl", asgi.request_body(random_frames(3))
    recorded, recorded_id = asyncio.run(_ask(asgi, RecordedCritic(RandomCritic(0.5), path), body))
    replayed, replayed_id = asyncio.run(_ask(asgi, ReplayedCritic(path), body))
    assert unpack(replayed)["values"] == unpack(recorded)["values"]
    assert replayed_id == recorded_id
