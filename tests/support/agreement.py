"""The requests on which engines are compared, and the comparison. Run as a script, it answers them by ms-swift."""

import json
import math
import sys
from collections import Counter
from pathlib import Path

import numpy as np

from vlac_gym.critic.engines.base import EngineReply, EngineRequest, EngineToken, TokenCandidate

SYSTEM = (
    "You are a visual-language assistant designed to interpret spatial and task-related information from images "
    "and text. Provide precise, context-aware responses and actionable guidance to assist in achieving task "
    "objectives."
)
PAIR = (
    "Image-1: <image>\nImage-2: <image>\nCompare two images and evaluate whether the second image is closer to "
    "achieving task objectives compared to the first image. The target task is: <task> open the drawer </task> <score>"
)
DONE = (
    "The 1 means yes, the 0 means no. Check if the robot has completed its task: "
    "<task> put the bowl on the plate </task> <done>"
)


def make_frame(seed: int, height: int, width: int) -> np.ndarray:
    """Coloured blocks: a picture with edges, which resizing treats as it treats photographs."""
    blocks = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.kron(blocks, np.ones((-(-height // 6), -(-width // 6), 1), np.uint8))[:height, :width]


def make_requests() -> list[EngineRequest]:
    """A pair, three references and a pair, a done check without marks, and one without system prompt."""
    a, b, c = make_frame(1, 256, 256), make_frame(2, 240, 320), make_frame(3, 448, 448)
    references = (
        "0% <image>\n 50% <image>\n 100% <image>\nThis image is the beginning of the next two. " + PAIR
    )
    return [
        EngineRequest(SYSTEM, PAIR, (a, b), max_new_tokens=3),
        EngineRequest(SYSTEM, references, (a, b, c, b, a), max_new_tokens=1, shared_frames=3),
        EngineRequest(SYSTEM, DONE, (c,), max_new_tokens=3),
        EngineRequest("", "How many bowls? <image>", (b,), max_new_tokens=2),
    ]


def largest_difference(one: list[EngineReply], other: list[EngineReply]) -> float:
    """Checks that replies and the nine best candidates agree; the largest difference of their probabilities.

    The tenth candidate may change places with an eleventh of almost equal probability. Tokens that are half a
    character are written as a replacement character by some engines and as nothing by others.
    """
    assert [plain(reply.text) for reply in one] == [plain(reply.text) for reply in other]
    worst = 0.0
    for mine, theirs in zip(one, other, strict=True):
        for a, b in zip(mine.tokens, theirs.tokens, strict=True):
            assert plain(a.token) == plain(b.token)
            known = probabilities(b)
            assert len(known) == len(probabilities(a)) == 10
            for key, probability in list(probabilities(a).items())[:9]:
                assert key in known, f"{key!r} is no candidate of the other engine"
                worst = max(worst, abs(probability - known[key]))
    return worst


def probabilities(token: EngineToken) -> dict[tuple[str, int], float]:
    """Probability of each candidate; the number tells candidates apart that are written alike."""
    seen: Counter[str] = Counter()
    found = {}
    for candidate in token.candidates:
        text = plain(candidate.token)
        found[text, seen[text]] = math.exp(candidate.logprob)
        seen[text] += 1
    return found


def plain(token: str) -> str:
    return token.replace("\ufffd", "")


def to_json(replies: list[EngineReply]) -> str:
    return json.dumps(
        [
            {
                "text": reply.text,
                "tokens": [
                    [t.token, t.logprob, [[c.token, c.logprob] for c in t.candidates]] for t in reply.tokens
                ],
            }
            for reply in replies
        ]
    )


def from_json(text: str) -> list[EngineReply]:
    return [
        EngineReply(
            reply["text"],
            tuple(
                EngineToken(token, logprob, tuple(TokenCandidate(*candidate) for candidate in candidates))
                for token, logprob, candidates in reply["tokens"]
            ),
        )
        for reply in json.loads(text)
    ]


if __name__ == "__main__":
    from vlac_gym.critic.engines.swift import SwiftEngine

    checkpoint, out = sys.argv[1:]
    engine = SwiftEngine(checkpoint, device="cpu", dtype="float32")
    Path(out).write_text(to_json(engine.generate(make_requests())))
