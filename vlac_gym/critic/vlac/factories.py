"""VLAC from a spec string: `from_transformers`, `from_swift`, `from_openai`, as `make_critic` calls them.

A spec is `NAME:ARGUMENT` or `NAME:ARGUMENT?key=value,key=value`; the keys are `SPEC_OPTIONS`. Engines are
imported here on first use, so that this module loads without torch, ms-swift or httpx.
"""

__all__ = ["SPEC_OPTIONS", "from_openai", "from_swift", "from_transformers"]

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from vlac_gym.critic.engines.base import Engine
from vlac_gym.critic.vlac.critic import VLACConfig, VLACCritic, check_pictures
from vlac_gym.errors import ConfigError, unknown_name
from vlac_gym.spec_options import parse_options

SPEC_OPTIONS: dict[str, type] = {
    "reading": str,
    "value_rule": str,
    "unfinished_value_limit": float,
    "out_of_scale": str,
    "max_thinking_tokens": int,
    "device": str,
    "dtype": str,
    "max_gpu_memory_gb": float,
    "vision_cache_mb": int,
    "max_batch_tokens": int,
    "max_batch_size": int,
    "max_concurrency": int,
    "timeout_s": float,
}
"""Option -> type of what may follow the `?` of a spec: numbers and texts of `VLACConfig` and of the engines.

Keys and permission to run a checkpoint's code are keywords only: a spec ends up in logs and configs.
"""

_CONFIG_FIELDS = frozenset(field.name for field in fields(VLACConfig))
_PICTURE_OPTIONS = ("references", "goal_image")
_CRITIC_OPTIONS = (*_PICTURE_OPTIONS, "name")


def from_transformers(argument: str, **options: Any) -> VLACCritic:
    """VLAC on a checkpoint directory in the native Hugging Face InternVL format.

    Args:
        argument: `PATH` or `PATH?key=value,…`.
        **options: Fields of `VLACConfig`, `references`, `goal_image`, and what `TransformersEngine` takes,
            e.g. `device`, `dtype`, `max_gpu_memory_gb`.

    Raises:
        ConfigError: No path, an unknown option, or a path that is not a checkpoint.
        DependencyNotInstalled: torch or transformers is missing.
    """
    path, options = _split(argument, options, "transformers:PATH")
    return _build("vlac_gym.critic.engines.transformers:TransformersEngine", (path,), options)


def from_swift(argument: str, **options: Any) -> VLACCritic:
    """VLAC through ms-swift, on the original checkpoint or the native one.

    Args:
        argument: `PATH` or `PATH?key=value,…`.
        **options: Fields of `VLACConfig`, `references`, `goal_image`, and what `SwiftEngine` takes.

    Raises:
        ConfigError: No path, an unknown option, or a path that is not a checkpoint.
        DependencyNotInstalled: ms-swift is missing.
    """
    path, options = _split(argument, options, "swift:PATH")
    return _build("vlac_gym.critic.engines.swift:SwiftEngine", (path,), options)


def from_openai(argument: str, **options: Any) -> VLACCritic:
    """VLAC behind an OpenAI-compatible server, e.g. `vllm serve`.

    Args:
        argument: `URL#MODEL` or `URL#MODEL?key=value,…`, e.g. `http://host:8000/v1#vlac-2b`.
        **options: Fields of `VLACConfig`, `references`, `goal_image`, and what `OpenAIEngine` takes.

    Raises:
        ConfigError: No URL or model, or an unknown option.
        DependencyNotInstalled: httpx is missing.
    """
    target, options = _split(argument, options, "openai:URL#MODEL")
    url, _, model = target.rpartition("#")
    if not url.startswith(("http://", "https://")) or not model:
        raise ConfigError(
            f"Expected a spec openai:URL#MODEL, e.g. openai:http://host:8000/v1#vlac-2b, got {argument!r}."
        )
    return _build("vlac_gym.critic.engines.openai:OpenAIEngine", (url, model), options)


def _split(argument: str, options: Mapping[str, Any], form: str) -> tuple[str, dict[str, Any]]:
    """Splits `TARGET?key=value` unless the whole of it is an existing path."""
    target, _, query = (argument, "", "") if Path(argument).exists() else argument.partition("?")
    if not target.strip():
        raise ConfigError(f"Expected a spec {form}, got nothing after the colon.")
    from_spec = parse_options(query, SPEC_OPTIONS, form)
    twice = sorted(from_spec.keys() & options.keys())
    if twice:
        raise ConfigError(f"Option {twice[0]!r} is given in the spec and as a keyword. Drop one.")
    return target.strip(), {**from_spec, **options}


def _build(target: str, arguments: tuple[str, ...], options: Mapping[str, Any]) -> VLACCritic:
    config = VLACConfig(**{name: value for name, value in options.items() if name in _CONFIG_FIELDS})
    pictures = {name: options[name] for name in _PICTURE_OPTIONS if name in options}
    check_pictures(**pictures)
    own = _CONFIG_FIELDS.union(_CRITIC_OPTIONS)
    rest = {name: value for name, value in options.items() if name not in own}
    module_name, _, class_name = target.partition(":")
    engine_class = getattr(importlib.import_module(module_name), class_name)
    accepted = list(inspect.signature(engine_class).parameters)[len(arguments) :]
    for name in rest:
        if name not in accepted:
            raise unknown_name(f"{class_name} option", name, own.union(accepted))
    engine: Engine = engine_class(*arguments, **rest)
    return VLACCritic(engine, config, **pictures, name=options.get("name"))
