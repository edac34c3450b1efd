"""Several critics that answer as one: `EnsembleCritic`."""

__all__ = ["Combination", "EnsembleCritic"]

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import cached_property
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from vlac_gym.critic.answers import checked_answers
from vlac_gym.critic.base import BaseCritic, Critic
from vlac_gym.critic.knowledge import shared_knowledge
from vlac_gym.critic.registry import check_critic, make_critic
from vlac_gym.critic.wrapper import adapted
from vlac_gym.errors import ConfigError, CriticResponseError, unknown_name
from vlac_gym.specs.options import option_types, read_members
from vlac_gym.types import CriticInfo, FloatArray, Frame, fingerprint_of

Combination = Literal["min", "mean", "median"]
"""How the answers of several critics become one."""

_COMBINATIONS: dict[Combination, Callable[..., NDArray[np.float64]]] = {
    "min": np.min,
    "mean": np.mean,
    "median": np.median,
}

_T = TypeVar("_T")
_Frames = Sequence[Frame]
_Shown = Callable[[_Frames], _Frames]
"""Frames as one of the critics is to see them."""


class EnsembleCritic(BaseCritic):
    """Puts every question to several critics, once to each and one after the other, and combines their answers.

    With `min`, the default, an episode is stopped only where all of them say done. Value lists and progress are
    combined number by number:

    - The value of a frame is the least, mean or median of the values that the members give it; each member accumulates
      its own progress, so that the list begins with 0 and stays in [0, 1].
    - Progress is combined with its sign: the `min` of +0.5 and -0.2 is -0.2, so a step forward counts as far as all
      see it, and a regress as soon as one sees it. A pair and the same pair turned round then sum up to 0 or less:
      going to and fro never pays. Under `mean` and `median` they cancel as they do for each member.

    It is asked about what all members know, and is privileged if one of them is; the others see pictures alone. What
    one raises is raised, and the others' answers are dropped.

    Args:
        members: Two or more critics, which are closed with this one, or specs of critics.
        combine: `min`, `mean` or `median` of the success probabilities; of two, mean and median are the same.
        combine_values: The same for value lists and progress; None for as `combine`.

    Attributes:
        members: The critics, in order.
        combine: As given.
        combine_values: As given, or as `combine`.
        is_remote: Whether the model of one of them runs in a server.
        takes_concurrent_calls: Whether all of them do.

    Raises:
        ConfigError: Fewer than two members, something that is no critic, or an unknown combination.

    Example:
        >>> from vlac_gym.critic.scripted import ScriptedCritic
        >>> members = [ScriptedCritic([0.75, 0.5]), ScriptedCritic([0.25, 1.0])]
        >>> frame = np.zeros((2, 2, 3), np.uint8)
        >>> EnsembleCritic(members).success_prob([frame, frame], ["stack", "stack"]).tolist()
        [0.25, 0.5]
    """

    def __init__(
        self,
        members: Sequence[Critic | str],
        combine: Combination = "min",
        combine_values: Combination | None = None,
    ) -> None:
        _check(members, combine, combine_values)
        self.combine: Combination = combine
        self.combine_values: Combination = combine if combine_values is None else combine_values
        self.members = _built(members)
        self.is_remote = any(member.is_remote for member in self.members)
        self.takes_concurrent_calls = all(member.takes_concurrent_calls for member in self.members)

    @classmethod
    def from_spec(cls, argument: str, **options: Any) -> "EnsembleCritic":
        """Builds `ensemble:SPEC|SPEC`, or `ensemble:SPEC|SPEC|?combine=mean,combine_values=min`."""
        where = "ensemble:SPEC|SPEC"
        known = option_types(cls)
        if unknown := sorted(options.keys() - known):
            raise unknown_name("ensemble option", unknown[0], known)
        members, options = read_members(argument, known, where, given=options)
        return cls(members, **options)

    @classmethod
    def check_spec(cls, argument: str) -> None:
        """Raises `ConfigError` for what `from_spec` would refuse, members' options included; builds none of them."""
        members, options = read_members(argument, option_types(cls), "ensemble:SPEC|SPEC")
        _check(members, **options)

    @property
    def can_sleep(self) -> bool:
        """Whether one of them can; those that can't are left as they are."""
        return any(member.can_sleep for member in self.members)

    @property
    def retries(self) -> int:
        """Of all members."""
        return sum(member.retries for member in self.members)

    @property
    def failovers(self) -> int:
        """Of all members."""
        return sum(member.failovers for member in self.members)

    @property
    def failbacks(self) -> int:
        """Of all members."""
        return sum(member.failbacks for member in self.members)

    def success_prob(self, frames: Sequence[Frame], tasks: Sequence[str]) -> FloatArray:
        """Combined; see `Critic.success_prob`.

        Raises:
            CriticResponseError: A member's answer is not finite, out of range or of another shape.
        """
        answers = self._ask(lambda critic, shown: critic.success_prob(shown(frames), tasks))
        return self._combined(self.combine, answers, len(frames), 0.0, "success_prob")

    def progress(
        self,
        before: Sequence[Frame],
        after: Sequence[Frame],
        tasks: Sequence[str],
        references: Sequence[Frame] | None = None,
    ) -> FloatArray:
        """Combined with its sign; see `Critic.progress`. Raises as `success_prob`."""
        answers = self._ask(
            lambda critic, shown: critic.progress(shown(before), shown(after), tasks, references)
        )
        return self._combined(self.combine_values, answers, len(before), -1.0, "progress")

    def value(
        self, frames: Sequence[Frame], task: str, references: Sequence[Frame] | None = None
    ) -> FloatArray:
        """Combined frame by frame; see `Critic.value`. Raises as `success_prob`."""
        answers = self._ask(lambda critic, shown: critic.value(shown(frames), task, references))
        return self._combined(self.combine_values, answers, len(frames), 0.0, "value")

    def values(
        self,
        episodes: Sequence[Sequence[Frame]],
        tasks: Sequence[str],
        references: Sequence[Frame] | None = None,
    ) -> list[FloatArray]:
        """Each episode's, as `value`, by one call of each member."""
        answers = self._ask(
            lambda critic, shown: critic.values([shown(frames) for frames in episodes], tasks, references)
        )
        for place, lists in enumerate(answers):
            if len(lists) != len(episodes):
                raise CriticResponseError(
                    f"Expected {len(episodes)} value lists from {self._name(place)}, got {len(lists)}."
                )
        return [
            self._combined(self.combine_values, own, len(frames), 0.0, "value")
            for frames, *own in zip(episodes, *answers)
        ]

    def value_and_progress(
        self, frames: Sequence[Frame], task: str, references: Sequence[Frame] | None = None
    ) -> tuple[FloatArray, FloatArray]:
        """As `value` and `progress`, by one call of each member."""
        answers = self._ask(lambda critic, shown: critic.value_and_progress(shown(frames), task, references))
        values, progress = [list(own) for own in zip(*answers)]
        return (
            self._combined(self.combine_values, values, len(frames), 0.0, "value"),
            self._combined(self.combine_values, progress, len(frames) - 1, -1.0, "progress"),
        )

    def describe(self) -> CriticInfo:
        """All of them, in order: `details["members"]` holds the fields of each one's description."""
        return self._describe([member.describe() for member in self.members])

    def identify(self, *, retry: bool = True) -> CriticInfo:
        """`describe`, after each member was asked who it is."""
        return self._describe([member.identify(retry=retry) for member in self.members])

    def warm_up(self) -> None:
        """Prepares each."""
        for member in self.members:
            member.warm_up()

    def sleep(self) -> None:
        """Puts to sleep all that can. Where one fails, those before it are woken again, and its error is raised.

        Raises:
            ConfigError: None can.
        """
        self._switch("sleep", lambda m: m.sleep(), lambda m: m.wake())

    def wake(self) -> None:
        """Wakes all that can sleep. Where one fails, those before it are put to sleep again, and its error is raised.

        Raises:
            ConfigError: None can.
        """
        self._switch("wake", lambda m: m.wake(), lambda m: m.sleep())

    def gpu_memory_bytes(self) -> int | None:
        """The sum; None where a member that may hold some can't tell how much."""
        held = [member.gpu_memory_bytes() for member in self.members]
        if all(own is None for own in held):
            return None
        total = 0
        for member, own in zip(self.members, held):
            if own is None and (member.is_remote or member.describe().device != "cpu"):
                return None
            total += own or 0
        return total

    def close(self) -> None:
        """Closes all, also where closing one fails."""
        with ExitStack() as closing:
            for member in reversed(self.members):
                closing.callback(member.close)

    def _switch(
        self, method: str, do: Callable[[BaseCritic], None], undo: Callable[[BaseCritic], None]
    ) -> None:
        """All of them or none."""
        if not self.can_sleep:
            raise self._sleepless(method)
        with ExitStack() as back:
            for member in self.members:
                if member.can_sleep:
                    do(member)
                    back.callback(undo, member)
            back.pop_all()

    def _ask(self, call: Callable[[BaseCritic, _Shown], _T]) -> list[_T]:
        """Each member's answer, in order."""
        return [
            call(member, _as_they_are if info.is_privileged else _pictures)
            for member, info in zip(self.members, self._infos)
        ]

    @cached_property
    def _infos(self) -> list[CriticInfo]:
        """What the members said of themselves at the first question."""
        return [member.describe() for member in self.members]

    def _combined(
        self, how: Combination, answers: Sequence[object], count: int, low: float, what: str
    ) -> FloatArray:
        checked = [
            checked_answers(answer, count, low, f"{what} of {self._name(place)}")
            for place, answer in enumerate(answers)
        ]
        return _COMBINATIONS[how](np.array(checked, np.float64), axis=0).astype(np.float32)

    def _name(self, place: int) -> str:
        return f"member {place + 1} ({self._infos[place].name})"

    def _describe(self, infos: Sequence[CriticInfo]) -> CriticInfo:
        return CriticInfo(
            name="ensemble",
            model=" + ".join(
                info.name if info.model == "none" else f"{info.name} {info.model}" for info in infos
            ),
            prompt_version=_listed(info.prompt_version for info in infos),
            device=_listed(info.device for info in infos),
            is_privileged=any(info.is_privileged for info in infos),
            details={
                "combine": self.combine,
                "combine_values": self.combine_values,
                "members": [asdict(info) for info in infos],
                **_num_references(infos),
            },
            knows=shared_knowledge([info.knows for info in infos]),
            inputs=_unknown_inputs(infos),
            fingerprint=fingerprint_of(
                ["ensemble", self.combine, self.combine_values, [info.fingerprint for info in infos]]
            ),
        )


def _check(members: Sequence[Critic | str], combine: str = "min", combine_values: str | None = None) -> None:
    for name, given in (("combine", combine), ("combine_values", combine_values or combine)):
        if given not in _COMBINATIONS:
            raise unknown_name(name, str(given), _COMBINATIONS)
    if isinstance(members, str) or len(members) < 2:
        raise ConfigError(f"Expected two or more critics for an ensemble, got {members!r}.")
    for place, member in enumerate(members):
        with _named(member, place):
            check_critic(member)


def _built(members: Sequence[Critic | str]) -> tuple[BaseCritic, ...]:
    """All of them, or none of those that were given as specs."""
    with ExitStack() as undo:
        built = []
        for place, member in enumerate(members):
            if isinstance(member, str):
                with _named(member, place):
                    critic = make_critic(member)
                undo.callback(critic.close)
            else:
                critic = adapted(member)
            built.append(critic)
        undo.pop_all()
    return tuple(built)


@contextmanager
def _named(member: Critic | str, place: int) -> Iterator[None]:
    """What is wrong with a member's spec, with its place and where the ensemble's own options belong."""
    try:
        yield
    except ConfigError as e:
        if not isinstance(member, str):
            raise
        raise ConfigError(
            f"Member {place + 1} of the ensemble, {member!r}: {e} The ensemble's own options stand behind a last '|', "
            "as in 'ensemble:nano|oracle|?combine=mean'."
        ) from e


def _as_they_are(frames: _Frames) -> _Frames:
    return frames


def _pictures(frames: _Frames) -> _Frames:
    """Without the simulator's signals, should they carry any; nothing is copied."""
    return [frame if type(frame) is np.ndarray else np.asarray(frame) for frame in frames]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(names))


def _num_references(infos: Sequence[CriticInfo]) -> dict[str, int]:
    """The most that one of them shows of its own; absent unless all take references."""
    shown: list[Any] = [(info.details or {}).get("num_references") for info in infos]
    return {} if None in shown else {"num_references": max(shown)}


def _unknown_inputs(infos: Sequence[CriticInfo]) -> tuple[str, ...]:
    """What a member shows its model and that model does not know; what it knows is no affair of the others."""
    unknown = {
        name
        for info in infos
        for name in info.inputs
        if info.knows.inputs is not None and name not in info.knows.inputs
    }
    return tuple(sorted(unknown))
