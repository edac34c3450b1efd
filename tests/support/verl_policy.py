"""A policy server for verl's agent loops that draws actions instead of predicting them: `DrawingPolicy`."""

import random
from typing import Any

from verl.workers.rollout.replica import TokenOutput


class DrawingPolicy:
    """Answers as an `LLMServerClient`: integers drawn with a seed and the number of the question.

    Args:
        path: Folder of the tokenizer.
        numbers: Integers per reply.
        seed: Start of the draws.
    """

    def __init__(self, path: str, numbers: int, seed: int = 0) -> None:
        self._path, self._numbers = path, numbers
        self._random = random.Random(seed)
        self._tokenizer: Any = None
        self.tokenizer: Any = None
        self.questions: list[dict[str, Any]] = []
        self.replies: list[str] = []

    async def generate(self, request_id: str, **question: Any) -> TokenOutput:
        """One reply; the question is kept."""
        from transformers import AutoTokenizer

        if self._tokenizer is None:
            self._tokenizer = AutoTokenizer.from_pretrained(self._path)
        text = " ".join(str(self._random.randint(0, 1000)) for _ in range(self._numbers))
        self.questions.append({"request_id": request_id, **question})
        self.replies.append(text)
        token_ids = [*self._tokenizer.encode(text), self._tokenizer.eos_token_id]
        return TokenOutput(
            token_ids=token_ids,
            log_probs=[-0.5] * len(token_ids),
            stop_reason="completed",
            num_preempted=0,
            extra_fields={"global_steps": 3, "min_global_steps": 3, "max_global_steps": 3},
        )
