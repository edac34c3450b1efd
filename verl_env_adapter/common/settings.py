"""One configuration block for every trainer: `AdapterSettings`, read from a plain mapping by `parse_settings`.

    mode: phase                      # phase: the critic trains, the simulator evaluates; eval: never the critic
    env: {suite: libero_spatial, tasks: [0, 1], cameras: [agentview], chunk: 8}
    critic: {spec: "http://critic:8400", on_error: truncate}
    rule: {preset: vlac, calibration: card.json, min_steps: 8}
    placement: {envs_per_worker: 4}

A key that does not exist is a `ConfigError` naming the nearest one. Standard library and numpy only.
"""

__all__ = [
    "AdapterSettings",
    "CriticSettings",
    "EnvSettings",
    "Phase",
    "PlacementSettings",
    "RuleSettings",
    "SETTINGS_VARIABLE",
    "is_url",
    "load_settings",
    "parse_settings",
    "serving_advice",
    "settings_from_environment",
    "to_plain",
]

import dataclasses
import json
import math
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from verl_env_adapter.common.env_settings import EnvSettings
from vlac_gym.checks import check_choice, check_int, is_number
from vlac_gym.critic.failure_policy import CriticFailurePolicy, failure_policy
from vlac_gym.critic.registry import check_critic
from vlac_gym.errors import ConfigError, unknown_name
from vlac_gym.extras import needs
from vlac_gym.rule.reward import TrainingRule
from vlac_gym.service.client_config import read_url_spec
from vlac_gym.specs.options import split_spec
from vlac_gym.types import Mode
from vlac_gym.wrappers.rule_setup import resolve_rule

Phase = Literal["train", "validate"]
"""What the trainer itself is doing."""

SETTINGS_VARIABLE = "VLAC_GYM_SETTINGS"
"""Environment variable with the path of a settings file, for trainers that hand an adapter no configuration."""

_T = TypeVar("_T")


_BESIDE_SPEC = {"timeout_s", "deadline_s", "max_attempts", "token_file"}
"""Options of a critic server that have a place of their own among the settings."""


@dataclass(frozen=True, kw_only=True)
class CriticSettings:
    """The critic, and what happens without it.

    Attributes:
        spec: See `vlac_gym.critic.make_critic`: a server's URL, also with further options as in
            `http://host:8400?encoding=png`, or `oracle`, `transformers:PATH`, ….
        on_error: What happens without a usable answer: the fields of `CriticFailurePolicy` as a mapping, or its `then`
            alone. `raise` gives the failure to the trainer; `truncate` ends the episode with reward 0 and marks it
            failed, so that the trainer can mask it. `fallbacks` are specs.
        on_mismatch: `raise` or `warn`; see `on_critic_mismatch` of `VLACRewardWrapper`.
        timeout_s: Deadline of one attempt (servers only); None takes half of a question's deadline.
        deadline_s: Deadline of one question with all attempts (servers only); None: see `critic_options`.
        max_attempts: Attempts of one question (servers only).
        ask_window_s: Where envs go at their own pace (verl's agent loop), how long the first question waits for those
            of other envs while the critic is free.
        token_file: File with the server's bearer token.
    """

    spec: str = "oracle"
    on_error: CriticFailurePolicy = field(default_factory=CriticFailurePolicy)
    on_mismatch: Literal["raise", "warn"] = "raise"
    timeout_s: float | None = None
    deadline_s: float | None = None
    max_attempts: int = 10
    ask_window_s: float = 0.002
    token_file: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.spec, str) or not self.spec.strip():
            raise ConfigError(f"Expected critic.spec such as 'http://host:8400', got {self.spec!r}.")
        check_critic(self.spec)
        check_choice("critic.on_mismatch", self.on_mismatch, ("raise", "warn"))
        check_int("critic.max_attempts", self.max_attempts, minimum=1)
        for name in ("timeout_s", "deadline_s"):
            value = getattr(self, name)
            if value is not None and not (is_number(value) and value > 0):
                raise ConfigError(f"Expected critic.{name} above 0 or null, got {value!r}.")
        if not (is_number(self.ask_window_s) and self.ask_window_s >= 0):
            raise ConfigError(f"Expected critic.ask_window_s >= 0, got {self.ask_window_s!r}.")
        for spec in self.specs:
            _check_beside(spec)
        if not any(map(is_url, self.specs)):
            given = [name for name in ("timeout_s", "deadline_s", "token_file") if getattr(self, name)]
            if given:
                raise ConfigError(
                    f"critic.{given[0]} is for critic servers, but critic.spec is {self.spec!r}. Drop it."
                    f"{serving_advice(self.spec)}"
                )

    @property
    def is_remote(self) -> bool:
        """Is the critic a server?"""
        return is_url(self.spec)

    def require_server(self, sleeper: str, instead: str) -> None:
        """Refuses a critic that is no server, where one is put to sleep.

        Args:
            sleeper: What does that, as a user names it.
            instead: What a user takes in its place for a critic that is no server.

        Raises:
            ConfigError: The critic is no server.
        """
        if not self.is_remote:
            raise ConfigError(
                f"{sleeper} puts a critic server to sleep, but critic.spec is {self.spec!r}. Use {instead}, or give a "
                f"server's URL.{serving_advice(self.spec)}"
            )

    @property
    def specs(self) -> tuple[str, ...]:
        """The critic's spec, and those of its fallbacks."""
        return (self.spec, *(str(spec) for spec in self.on_error.fallbacks))


def is_url(spec: str) -> bool:
    """Does the spec name a critic server?"""
    return split_spec(spec)[0] in ("http", "https")


def serving_advice(spec: str) -> str:
    """A sentence, after a blank, for those who name an ensemble where a server's URL must be; else empty."""
    if split_spec(spec)[0] != "ensemble":
        return ""
    return f" Serve the ensemble and give that server's URL: vlac-gym serve --critic {shlex.quote(spec)}"


def _check_beside(spec: str) -> None:
    """Refuses options in a server's spec that have a place beside it."""
    if not is_url(spec):
        return
    _, in_spec = read_url_spec(spec)
    if twice := sorted(in_spec.keys() & _BESIDE_SPEC):
        raise ConfigError(
            f"critic.spec {spec!r} gives {twice[0]}. Give critic.{twice[0]} instead, which is kept within the "
            "trainer's own deadline."
        )


@dataclass(frozen=True, kw_only=True)
class RuleSettings:
    """The training rule: a preset, a report card's thresholds, and fields of `TrainingRule` that replace both.

    Attributes:
        preset: `vlac`, `sparse`, `dense`, `pbrs` or `evolve`.
        calibration: Path of a report card's `card.json`.
        options: Fields of `vlac_gym.rule.reward.TrainingRule`, written beside `preset` in the block.
    """

    preset: str = "vlac"
    calibration: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def resolve(self) -> TrainingRule:
        """The rule that results.

        Raises:
            ConfigError: Unknown preset, a value out of range, or a bad calibration file.
        """
        return resolve_rule(self.preset, self.calibration, self.options, None)


@dataclass(frozen=True, kw_only=True)
class PlacementSettings:
    """Where env processes run, and how long a trainer waits for them.

    Attributes:
        envs_per_worker: Env processes of one trainer worker, >= 1; more episodes than that wait.
        env_resource: Ray resource of the env processes, e.g. `sim`; None runs them beside their worker.
        start_timeout_s: Deadline of a reset, which may compile a scene.
        step_timeout_s: Deadline of an action chunk.
    """

    envs_per_worker: int = 4
    env_resource: str | None = None
    start_timeout_s: float = 600.0
    step_timeout_s: float = 300.0

    def __post_init__(self) -> None:
        check_int("placement.envs_per_worker", self.envs_per_worker, minimum=1)
        for name in ("start_timeout_s", "step_timeout_s"):
            value = getattr(self, name)
            if not (is_number(value) and value > 0):
                raise ConfigError(f"Expected placement.{name} above 0, got {value!r}.")


@dataclass(frozen=True, kw_only=True)
class AdapterSettings:
    """Everything that an adapter is told.

    Attributes:
        mode: `phase` follows the trainer: the critic in its training phase, the simulator in its validation.
            `eval` takes the simulator's signals in both, for a baseline. `train` refuses to validate.
        env: The environment.
        critic: The critic.
        rule: The training rule.
        truncate_as_terminal: Report the critic's value at the step limit as a terminal reward, for trainers
            that bootstrap after truncation.
        placement: Env processes.
    """

    mode: Literal["phase", "train", "eval"] = "phase"
    env: EnvSettings = field(default_factory=EnvSettings)
    critic: CriticSettings = field(default_factory=CriticSettings)
    rule: RuleSettings = field(default_factory=RuleSettings)
    truncate_as_terminal: bool = False
    placement: PlacementSettings = field(default_factory=PlacementSettings)

    def __post_init__(self) -> None:
        check_choice("mode", self.mode, ("phase", "train", "eval"))
        if not isinstance(self.truncate_as_terminal, bool):
            raise ConfigError(
                f"Expected truncate_as_terminal as true or false, got {self.truncate_as_terminal!r}."
            )
        if self.env.scenes is not None and self.placement.env_resource is not None:
            raise ConfigError(
                f"Expected no placement.env_resource with env.backend: warp, got {self.placement.env_resource!r}: "
                "worlds are in the process that steps them. Drop it."
            )

    @property
    def rule_options(self) -> dict[str, Any]:
        """The fields of `TrainingRule` that the wrapper is given beside the preset and the calibration."""
        return {**self.rule.options, "truncate_as_terminal": self.truncate_as_terminal}

    def mode_in(self, phase: Phase) -> Mode:
        """The wrapper's mode in a phase of the trainer.

        Raises:
            ConfigError: ``mode: train`` while the trainer validates: a critic's opinion would be published as
                success.
        """
        check_choice("phase", phase, ("train", "validate"))
        if self.mode == "eval" or (self.mode == "phase" and phase == "validate"):
            return "eval"
        if phase == "validate":
            raise ConfigError(
                "The trainer validates, but the settings say mode: train. Use mode: phase, which takes the "
                "simulator's signals in validation."
            )
        return "train"

    def critic_options(self, host_deadline_s: float | None = None) -> dict[str, Any]:
        """Keyword options of critic servers for `make_critic`, with a deadline below the host's.

        Args:
            host_deadline_s: How long the trainer waits for one action chunk; None if it waits for ever.

        Returns:
            Empty if neither the critic nor a fallback is a server.

        Raises:
            ConfigError: `deadline_s` leaves the host no time: a chunk asks up to ``ceil(chunk /
                done_interval)`` times for done and once for the value, each critic ``retries + 1`` times.
        """
        if not any(map(is_url, self.critic.specs)):
            return {}
        questions = math.ceil(self.env.chunk / self.rule.resolve().done_interval) + 1
        questions *= (self.critic.on_error.retries + 1) * len(self.critic.specs)
        limit = math.inf if host_deadline_s is None else 0.8 * host_deadline_s / questions
        deadline_s = self.critic.deadline_s
        if deadline_s is None:
            deadline_s = min(60.0, limit)
        elif deadline_s > limit:
            raise ConfigError(
                f"Expected critic.deadline_s of at most {limit:.1f}, got {deadline_s}: this trainer gives up on an "
                f"action chunk after {host_deadline_s} s, and a chunk of {self.env.chunk} asks the critic up to "
                f"{questions} times, retries and fallbacks included. Raise rule.done_interval or lower "
                "critic.deadline_s."
            )
        options: dict[str, Any] = {
            "deadline_s": deadline_s,
            "timeout_s": min(self.critic.timeout_s or deadline_s / 2, deadline_s),
            "max_attempts": self.critic.max_attempts,
        }
        if self.critic.token_file is not None:
            options["token_file"] = self.critic.token_file
        return options


def parse_settings(block: Mapping[str, Any]) -> AdapterSettings:
    """Reads the block; OmegaConf containers count as mappings and lists, and are not changed.

    Raises:
        ConfigError: An unknown key (with the nearest known one), or a value that does not fit.
    """
    content = to_plain(block)
    if not isinstance(content, dict):
        raise ConfigError(f"Expected the settings as a mapping, got {type(block).__name__}.")
    sections: dict[str, Any] = {
        "env": lambda fields: _build(EnvSettings, _with_tuples(fields), "env"),
        "critic": _parse_critic,
        "rule": _parse_rule,
        "placement": lambda fields: _build(PlacementSettings, fields, "placement"),
    }
    values = dict(content)
    for name, parse in sections.items():
        fields = values.pop(name, None)
        if fields is None:
            continue
        if not isinstance(fields, dict):
            raise ConfigError(f"Expected the settings' {name} as a mapping, got {fields!r}.")
        values[name] = parse(fields)
    return _build(AdapterSettings, values, "the settings")


def load_settings(path: str | os.PathLike[str]) -> AdapterSettings:
    """Reads the block from a JSON or YAML file; a top-level key `vlac_gym` around it may be there.

    Raises:
        ConfigError: No such file, not parsable, or a bad block.
        DependencyNotInstalled: A YAML file, and PyYAML is missing.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as e:
        raise ConfigError(f"Can't read the settings file {file}: {e}.") from e
    content = _parse_text(text, file)
    if isinstance(content, dict) and set(content) == {"vlac_gym"}:
        content = content["vlac_gym"]
    try:
        return parse_settings(content)
    except ConfigError as e:
        raise ConfigError(f"{file}: {e}") from e


def settings_from_environment() -> AdapterSettings | None:
    """The settings of the file that `VLAC_GYM_SETTINGS` names; None if it is not set."""
    path = os.environ.get(SETTINGS_VARIABLE)
    return load_settings(path) if path else None


def _parse_text(text: str, file: Path) -> Any:
    try:
        if file.suffix == ".json":
            return json.loads(text)
        with needs(f"Reading {file}", get="Run: pip install pyyaml"):
            import yaml
        try:
            return yaml.safe_load(text)
        except yaml.YAMLError as e:
            raise ConfigError(f"Expected YAML in {file}: {e}") from e
    except json.JSONDecodeError as e:
        raise ConfigError(f"Expected JSON in {file}: {e}") from e


def _parse_critic(fields: dict[str, Any]) -> CriticSettings:
    given = fields.get("on_error")
    if given is None:
        return _build(CriticSettings, {k: v for k, v in fields.items() if k != "on_error"}, "critic")
    if isinstance(given, dict):
        policy = _build(CriticFailurePolicy, given, "critic.on_error")
    else:
        policy = failure_policy(given, "critic.on_error")
    return _build(CriticSettings, {**fields, "on_error": policy}, "critic")


def _parse_rule(fields: dict[str, Any]) -> RuleSettings:
    own = {"preset", "calibration"}
    known = own | {item.name for item in dataclasses.fields(TrainingRule)} - {"truncate_as_terminal"}
    if "truncate_as_terminal" in fields:
        raise ConfigError("Expected truncate_as_terminal beside rule, got it in rule. Move it one level up.")
    for name in fields:
        if name not in known:
            raise unknown_name("key in rule", str(name), known)
    options = {name: value for name, value in fields.items() if name not in own}
    rule = _build(RuleSettings, {name: fields[name] for name in own & fields.keys()}, "rule")
    rule = dataclasses.replace(rule, options=options)
    rule.resolve()
    return rule


def _build(kind: type[_T], fields: Mapping[str, Any], where: str) -> _T:
    known = {item.name for item in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for name in fields:
        if name not in known:
            raise unknown_name(f"key in {where}", str(name), known)
    return kind(**fields)


def _with_tuples(fields: dict[str, Any]) -> dict[str, Any]:
    return {
        name: tuple(value) if name in ("tasks", "cameras") and isinstance(value, list) else value
        for name, value in fields.items()
    }


def to_plain(value: Any) -> Any:
    """Mappings and sequences, OmegaConf's too, as dicts and lists; the rest as it is."""
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [to_plain(item) for item in value]
    return value
