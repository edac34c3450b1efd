"""Asks vLLM's own engine, in the environment that has it, to go on with a few tokens.

    python tests/support/vllm_answers.py CHECKPOINT OUT.json

writes a list of {token: log-probability} of the five most likely tokens, one for each of four greedy ones. vLLM starts
its worker by running this file again, hence the guard at the end.
"""

import json
import sys
from pathlib import Path

PROMPT = [5, 300, 77, 1200, 9]


def main(checkpoint: str, out: str) -> None:
    import vllm

    model = vllm.LLM(checkpoint, dtype="float32", enforce_eager=True, max_model_len=512)
    params = vllm.SamplingParams(temperature=0, max_tokens=4, ignore_eos=True, logprobs=5)
    [answer] = model.generate([{"prompt_token_ids": PROMPT}], params)
    steps = answer.outputs[0].logprobs
    Path(out).write_text(
        json.dumps([{token: value.logprob for token, value in step.items()} for step in steps])
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
