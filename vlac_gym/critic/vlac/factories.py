"""VLAC from a spec string: `from_transformers`, `from_swift`, `from_openai`, as `make_critic` calls them.

A spec is `NAME:TARGET` or `NAME:TARGET?key=value,key=value`; the keys are the fields of `VLACConfig` and the engine's
own parameters. Engines are imported here on first use, so that this module loads without torch, ms-swift or httpx.
"""

__all__ = ["from_openai", "from_swift", "from_transformers", "spec_options"]

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from vlac_gym.critic.engines.base import Engine
from vlac_gym.critic.knowledge import read_knowledge
from vlac_gym.critic.vlac.critic import VLACConfig, VLACCritic, check_pictures
from vlac_gym.errors import ConfigError, unknown_name
from vlac_gym.specs.options import option_types, read_argument

_NOT_IN_SPECS = ("path", "base_url", "model", "api_key", "allow_remote_code")
"""Parameters of engines that no spec's options give: its target does, or only a keyword may, since specs end up in
logs and configs."""

_CONFIG_FIELDS = frozenset(field.name for field in fields(VLACConfig))
_PICTURE_OPTIONS = ("references", "goal_image")
_CRITIC_OPTIONS = (*_PICTURE_OPTIONS, "name", "knows")


def from_transformers(argument: str, defaults: Mapping[str, Any] | None = None, **options: Any) -> VLACCritic:
    """VLAC on a checkpoint directory in the native Hugging Face InternVL format.

    Args:
        argument: `PATH` or `PATH?key=value,…`.
        defaults: Options that hold unless the spec or a keyword says otherwise.
        **options: Fields of `VLACConfig`, `references`, `goal_image`, `knows` (default: the directory's
            `knowledge.json`), and what `TransformersEngine` takes, e.g. `device`, `dtype`, `max_gpu_memory_gb`.

    Raises:
        ConfigError: No path, an unknown option, or a path that is not a checkpoint.
        DependencyNotInstalled: torch or transformers is missing.
    """
    engine_class = _load("vlac_gym.critic.engines.transformers:TransformersEngine", options)
    path, options = _read(argument, engine_class, "transformers:PATH", options)
    options.setdefault("knows", read_knowledge(path))
    return _build(engine_class, (path,), {**(defaults or {}), **options})


def from_swift(argument: str, **options: Any) -> VLACCritic:
    """VLAC through ms-swift, on the original checkpoint or the native one.

    Args:
        argument: `PATH` or `PATH?key=value,…`.
        **options: Fields of `VLACConfig`, `references`, `goal_image`, `knows` (default: the directory's
            `knowledge.json`), and what `SwiftEngine` takes.

    Raises:
        ConfigError: No path, an unknown option, or a path that is not a checkpoint.
        DependencyNotInstalled: ms-swift is missing.
    """
    engine_class = _load("vlac_gym.critic.engines.swift:SwiftEngine", options)
    path, options = _read(argument, engine_class, "swift:PATH", options)
    options.setdefault("knows", read_knowledge(path))
    return _build(engine_class, (path,), options)


def from_openai(argument: str, **options: Any) -> VLACCritic:
    """VLAC behind an OpenAI-compatible server, e.g. `vllm serve`.

    Args:
        argument: `URL#MODEL` or `URL#MODEL?key=value,…`, e.g. `http://host:8000/v1#vlac-2b`.
        **options: Fields of `VLACConfig`, `references`, `goal_image`, `knows`, and what `OpenAIEngine` takes.

    Raises:
        ConfigError: No URL or model, or an unknown option.
        DependencyNotInstalled: httpx is missing.
    """
    engine_class = _load("vlac_gym.critic.engines.openai:OpenAIEngine", options)
    target, options = _read(argument, engine_class, "openai:URL#MODEL", options)
    url, _, model = target.rpartition("#")
    if not url.startswith(("http://", "https://")) or not model:
        raise ConfigError(
            f"Expected a spec openai:URL#MODEL, e.g. openai:http://host:8000/v1#vlac-2b, got {argument!r}."
        )
    return _build(engine_class, (url, model), options)


def spec_options(engine_class: type) -> dict[str, type]:
    """Option -> type of what may follow the `?` of a spec for this engine."""
    return option_types(VLACConfig) | option_types(engine_class, without=_NOT_IN_SPECS)


def _load(target: str, options: Mapping[str, Any]) -> type:
    """The class of an engine; what can be refused without it is."""
    check_pictures(**_pictures(options))
    module_name, _, class_name = target.partition(":")
    engine_class: type = getattr(importlib.import_module(module_name), class_name)
    return engine_class


def _read(
    argument: str, engine_class: type, form: str, given: Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    return read_argument(argument, spec_options(engine_class), form, given=given)


def _build(engine_class: type, arguments: tuple[str, ...], options: Mapping[str, Any]) -> VLACCritic:
    config = VLACConfig(**{name: value for name, value in options.items() if name in _CONFIG_FIELDS})
    own = _CONFIG_FIELDS.union(_CRITIC_OPTIONS)
    rest = {name: value for name, value in options.items() if name not in own}
    accepted = list(inspect.signature(engine_class).parameters)[len(arguments) :]
    for name in rest:
        if name not in accepted:
            raise unknown_name(f"{engine_class.__name__} option", name, own.union(accepted))
    engine: Engine = engine_class(*arguments, **rest)
    return VLACCritic(
        engine, config, **_pictures(options), name=options.get("name"), knows=options.get("knows")
    )


def _pictures(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: options[name] for name in _PICTURE_OPTIONS if name in options}
