"""VLAC from a spec string, as `make_critic` calls it: `from_transformers`, `from_swift`, `from_openai`, and checks.

A spec is `NAME:TARGET` or `NAME:TARGET?key=value,key=value`; the keys are the fields of `VLACConfig`, the engine's
own parameters, and `warm_up`: whether to prepare for typical questions at once (`VLACCritic.warm_up`). A checkpoint is
named by its folder or by its id on the Hugging Face Hub, `OWNER/NAME` or `OWNER/NAME@REVISION`; see `find_checkpoint`.
Engines are imported here on first use, so that this module loads without torch, ms-swift or httpx.
"""

__all__ = [
    "check_openai",
    "check_swift",
    "check_transformers",
    "from_openai",
    "from_swift",
    "from_transformers",
    "spec_options",
]

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from vlac_gym.critic.engines.base import Engine
from vlac_gym.critic.knowledge import read_knowledge
from vlac_gym.critic.vlac.checkpoints import find_checkpoint
from vlac_gym.critic.vlac.critic import VLACConfig, VLACCritic, check_pictures
from vlac_gym.errors import ConfigError, unknown_name
from vlac_gym.specs.options import option_types, parameter_hints, read_argument
from vlac_gym.specs.targets import load_target

_NOT_IN_SPECS = ("path", "base_url", "model", "api_key", "allow_remote_code")
"""Parameters of engines that no spec's options give: its target does, or only a keyword may, since specs end up in
logs and configs."""

_CONFIG_FIELDS = frozenset(field.name for field in fields(VLACConfig))
_TRANSFORMERS = ("vlac_gym.critic.engines.transformers:TransformersEngine", "transformers:PATH")
_SWIFT = ("vlac_gym.critic.engines.swift:SwiftEngine", "swift:PATH")
_OPENAI = ("vlac_gym.critic.engines.openai:OpenAIEngine", "openai:URL#MODEL")
"""Where each engine is, and the form of its specs."""

_PICTURE_OPTIONS = ("references", "goal_image")
_WARM_UP: dict[str, type] = {"warm_up": bool}
_CRITIC_OPTIONS = (*_PICTURE_OPTIONS, *_WARM_UP, "name", "knows")


def from_transformers(argument: str, defaults: Mapping[str, Any] | None = None, **options: Any) -> VLACCritic:
    """VLAC on a checkpoint in the native Hugging Face InternVL format; one of the hub may be in VLAC's own.

    Args:
        argument: `PATH`, `PATH?key=value,…`, or a hub id in the place of the path.
        defaults: Options that hold unless the spec or a keyword says otherwise.
        **options: Fields of `VLACConfig`, `references`, `goal_image`, `warm_up`, `knows` (default: the directory's
            `knowledge.json`), and what `TransformersEngine` takes, e.g. `device`, `dtype`, `max_gpu_memory_gb`.

    Raises:
        ConfigError: No path, an unknown option, a path that is not a checkpoint, or an id that the hub does not give.
        DependencyNotInstalled: torch or transformers is missing.
    """
    engine_class, target, options = _read(argument, *_TRANSFORMERS, options)
    return _build_on_checkpoint(engine_class, target, {**(defaults or {}), **options})


def from_swift(argument: str, **options: Any) -> VLACCritic:
    """VLAC through ms-swift, on the original checkpoint or the native one.

    Args:
        argument: `PATH`, `PATH?key=value,…`, or a hub id in the place of the path: the native form of that checkpoint,
            or its original with `allow_remote_code`.
        **options: Fields of `VLACConfig`, `references`, `goal_image`, `warm_up`, `knows` (default: the directory's
            `knowledge.json`), and what `SwiftEngine` takes.

    Raises:
        ConfigError: No path, an unknown option, a path that is not a checkpoint, or an id that the hub does not give.
        DependencyNotInstalled: ms-swift is missing.
    """
    engine_class, target, options = _read(argument, *_SWIFT, options)
    return _build_on_checkpoint(engine_class, target, options)


def from_openai(argument: str, **options: Any) -> VLACCritic:
    """VLAC behind an OpenAI-compatible server, e.g. `vllm serve`.

    Args:
        argument: `URL#MODEL` or `URL#MODEL?key=value,…`, e.g. `http://host:8000/v1#vlac-2b`.
        **options: Fields of `VLACConfig`, `references`, `goal_image`, `warm_up`, `knows`, and what `OpenAIEngine`
            takes.

    Raises:
        ConfigError: No URL or model, or an unknown option.
        DependencyNotInstalled: httpx is missing.
    """
    engine_class, target, options = _read(argument, *_OPENAI, options)
    url, model = _url_and_model(target)
    config, rest = _sort(engine_class, 2, options)
    return _critic(engine_class(url, model, **rest), config, options)


def spec_options(engine_class: type) -> dict[str, type]:
    """Option -> type of what may follow the `?` of a spec for this engine."""
    return option_types(VLACConfig) | _WARM_UP | option_types(engine_class, without=_NOT_IN_SPECS)


def check_transformers(argument: str) -> None:
    """Raises `ConfigError` for options of `from_transformers` that do not fit; looks for no checkpoint."""
    _check(argument, *_TRANSFORMERS)


def check_swift(argument: str) -> None:
    """The same for `from_swift`."""
    _check(argument, *_SWIFT)


def check_openai(argument: str) -> None:
    """The same for `from_openai`, address and model's name included."""
    _url_and_model(_check(argument, *_OPENAI))


def _check(argument: str, engine: str, form: str) -> str:
    """The target of a spec whose options fit.

    Engines load torch: one is imported only for an option that is not the critic's own.
    """
    own = option_types(VLACConfig) | _WARM_UP
    try:
        target, options = read_argument(argument, own, form)
    except ConfigError:
        target, options = read_argument(argument, spec_options(load_target(engine)), form)
    VLACConfig(**{name: value for name, value in options.items() if name in _CONFIG_FIELDS})
    return target


def _read(
    argument: str, engine: str, form: str, given: Mapping[str, Any]
) -> tuple[type, str, dict[str, Any]]:
    """The class of an engine, which is loaded after what can be refused without it; target and options of a spec."""
    check_pictures(**_pictures(given))
    engine_class = load_target(engine)
    return engine_class, *read_argument(argument, spec_options(engine_class), form, given=given)


def _url_and_model(target: str) -> tuple[str, str]:
    url, _, model = target.rpartition("#")
    if not url.startswith(("http://", "https://")) or not model:
        raise ConfigError(
            f"Expected a spec openai:URL#MODEL, e.g. openai:http://host:8000/v1#vlac-2b, got {target!r}."
        )
    return url, model


def _build_on_checkpoint(engine_class: type, target: str, options: Mapping[str, Any]) -> VLACCritic:
    """Refuses what it can before it looks for the checkpoint, which may mean to download it."""
    config, rest = _sort(engine_class, 1, options)
    runs_code = bool(rest.get("allow_remote_code"))
    found = find_checkpoint(target, convert=not runs_code, with_code=runs_code)
    knows = options["knows"] if "knows" in options else read_knowledge(found.folder)
    engine = engine_class(str(found.folder), **rest)
    model = None if found.repo is None else found.name
    return _critic(engine, config, {**options, "knows": knows}, model=model)


def _sort(
    engine_class: type, num_arguments: int, options: Mapping[str, Any]
) -> tuple[VLACConfig, dict[str, Any]]:
    """Options into the critic's config and the engine's own, which come after its first arguments."""
    config = VLACConfig(**{name: value for name, value in options.items() if name in _CONFIG_FIELDS})
    if not isinstance(warm_up := options.get("warm_up", False), bool):
        raise ConfigError(f"Expected warm_up as true or false, got {warm_up!r}.")
    own = _CONFIG_FIELDS.union(_CRITIC_OPTIONS)
    rest = {name: value for name, value in options.items() if name not in own}
    accepted = list(parameter_hints(engine_class))[num_arguments:]
    for name in rest:
        if name not in accepted:
            raise unknown_name(f"{engine_class.__name__} option", name, own.union(accepted))
    return config, rest


def _critic(
    engine: Engine, config: VLACConfig, options: Mapping[str, Any], model: str | None = None
) -> VLACCritic:
    name, knows = options.get("name"), options.get("knows")
    critic = VLACCritic(engine, config, **_pictures(options), name=name, model=model, knows=knows)
    if options.get("warm_up"):
        try:
            critic.warm_up()
        except BaseException:
            critic.close()
            raise
    return critic


def _pictures(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: options[name] for name in _PICTURE_OPTIONS if name in options}
