"""Reads what transformers 5 wrote in transformers 4, which some trainers pin: `load_tokenizer`, `model_config`."""

__all__ = ["load_tokenizer", "model_config"]

import json
from pathlib import Path
from typing import Any

from vlac_gym.extras import needs

with needs("The transformers engine", "vlac"):
    import transformers

_IS_OLD = not hasattr(transformers, "TokenizersBackend")


def load_tokenizer(path: Path) -> Any:
    """The checkpoint's tokenizer, without running code of its own."""
    kwargs: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
    file = path / "tokenizer_config.json"
    config = json.loads(file.read_text()) if _IS_OLD and file.exists() else {}
    if config.get("tokenizer_class") != "TokenizersBackend":
        return transformers.AutoTokenizer.from_pretrained(path, **kwargs)
    # Version 4 has the class under another name, and wants the extra tokens, which tokenizer.json holds too, as a dict.
    return transformers.PreTrainedTokenizerFast.from_pretrained(path, extra_special_tokens={}, **kwargs)


def model_config(content: dict[str, Any]) -> Any:
    """The `InternVLConfig` of a `config.json`; `content` is not changed.

    Version 5 writes the base of the rotary angles into `rope_parameters`, where version 4 does not look: it would take
    its default, and the answers would be others.
    """
    text = content.get("text_config") or {}
    theta = (text.get("rope_parameters") or {}).get("rope_theta")
    if _IS_OLD and theta is not None:
        content = {**content, "text_config": {"rope_theta": theta, **text}}
    return transformers.InternVLConfig(**content)
