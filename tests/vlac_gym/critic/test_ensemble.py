"""Several critics that answer as one: numbers against plain numpy, one call each, and what they declare together."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import own_critics
import pytest
from hypothesis import given
from hypothesis import strategies as st
from vector_envs import LookingCritic, ShadedEnv
from wrapped_vector_envs import actions, build

from vlac_gym.critic import CriticWrapper, make_critic
from vlac_gym.critic.base import BaseCritic
from vlac_gym.critic.ensemble import EnsembleCritic
from vlac_gym.critic.oracle import OracleCritic
from vlac_gym.critic.recorded import RecordedCritic, ReplayedCritic
from vlac_gym.critic.scripted import CriticCall, ScriptedCritic
from vlac_gym.envs.scripted import ScriptedEnv
from vlac_gym.errors import ConfigError, CriticConnectionError, CriticResponseError
from vlac_gym.types import CriticInfo, CriticKnowledge
from vlac_gym.wrappers import VLACRewardWrapper

FRAMES = [np.full((4, 4, 3), level, np.uint8) for level in (0, 90, 200)]
TASKS = ["stack"] * 3
PLAIN = {"min": np.min, "mean": np.mean, "median": np.median}


class Declaring(ScriptedCritic):
    """A scripted critic with a description of its own; what it is told to do is noted in `log`."""

    def __init__(self, *probs, log=None, held=None, fails=(), can_sleep=True, is_remote=False, **about):
        super().__init__(success_probs=probs, repeat=True)
        self.log = [] if log is None else log
        self.info = CriticInfo(**{"name": "declaring", **about})
        self.held, self.fails, self._can_sleep, self.is_remote = held, fails, can_sleep, is_remote

    @property
    def can_sleep(self):
        return self._can_sleep

    @property
    def retries(self):
        return 2

    @property
    def failovers(self):
        return 3

    @property
    def failbacks(self):
        return 1

    def describe(self):
        return self.info

    def identify(self, *, retry=True):
        self._note("identify" if retry else "identify at once")
        return replace(self.info, model="identified")

    def warm_up(self):
        self._note("warm_up")

    def sleep(self):
        self._note("sleep")

    def wake(self):
        self._note("wake")

    def close(self):
        self._note("close")

    def gpu_memory_bytes(self):
        return self.held

    def _note(self, method):
        self.log.append(f"{self.info.name} {method}")
        if method in self.fails:
            raise CriticConnectionError(f"{self.info.name} can't {method}")


class Table(BaseCritic):
    """Answers with given numbers, whatever is shown; notes its calls."""

    def __init__(self, probs, progress, value_lists):
        self.probs, self.pairs, self.value_lists = probs, progress, value_lists
        self.calls = []

    def success_prob(self, frames, tasks):
        self.calls.append("success_prob")
        return np.array(self.probs, np.float32)

    def progress(self, before, after, tasks, references=None):
        self.calls.append("progress")
        return np.array(self.pairs, np.float32)

    def value(self, frames, task, references=None):
        self.calls.append("value")
        return np.array(self.value_lists[0], np.float32)

    def values(self, episodes, tasks, references=None):
        self.calls.append("values")
        return [np.array(own, np.float32) for own in self.value_lists]

    def value_and_progress(self, frames, task, references=None):
        self.calls.append("value_and_progress")
        return np.array(self.value_lists[0], np.float32), np.array(self.pairs[1:], np.float32)

    def describe(self):
        return CriticInfo("table")


def ask(critic):
    return float(critic.success_prob(FRAMES[:1], TASKS[:1])[0])


def declaring(*names, **options):
    """Critics of these names that note what they are told to do in one log, and the log."""
    log = []
    return [Declaring(0.5, name=name, log=log, **options) for name in names], log


unit = st.floats(0, 1, width=32)
signed = st.floats(-1, 1, width=32)
tables = st.builds(
    Table,
    st.lists(unit, min_size=3, max_size=3),
    st.lists(signed, min_size=3, max_size=3),
    st.lists(st.lists(unit, min_size=3, max_size=3), min_size=2, max_size=2),
)


@given(st.lists(tables, min_size=2, max_size=5), st.sampled_from([*PLAIN]), st.sampled_from([None, *PLAIN]))
def test_answers_are_those_of_numpy_by_one_call_of_each_member(members, combine, combine_values):
    critic = EnsembleCritic(members, combine, combine_values)
    of_values = PLAIN[combine_values or combine]

    def equal(answer, combined, expected):
        assert answer.dtype == np.float32
        # Not to the bit: NumPy adds up float32 in float32.
        np.testing.assert_allclose(answer, combined(np.array(expected, np.float64), axis=0), atol=1e-7)

    equal(critic.success_prob(FRAMES, TASKS), PLAIN[combine], [m.probs for m in members])
    equal(critic.progress(FRAMES, FRAMES, TASKS), of_values, [m.pairs for m in members])
    equal(critic.value(FRAMES, "stack"), of_values, [m.value_lists[0] for m in members])
    first, second = critic.values([FRAMES, FRAMES], TASKS[:2])
    equal(first, of_values, [m.value_lists[0] for m in members])
    equal(second, of_values, [m.value_lists[1] for m in members])
    values, progress = critic.value_and_progress(FRAMES, "stack")
    equal(values, of_values, [m.value_lists[0] for m in members])
    equal(progress, of_values, [m.pairs[1:] for m in members])
    asked = ["success_prob", "progress", "value", "values", "value_and_progress"]
    assert [m.calls for m in members] == [asked] * len(members)


@given(st.lists(tables, min_size=2, max_size=4), st.permutations(range(4)))
def test_the_order_of_members_changes_no_answer(members, order):
    turned = [members[i] for i in order if i < len(members)]
    for combine in PLAIN:
        answers = [EnsembleCritic(own, combine).success_prob(FRAMES, TASKS) for own in (members, turned)]
        np.testing.assert_allclose(*answers, atol=1e-7)


@given(st.lists(signed, min_size=2, max_size=5))
def test_going_to_and_fro_never_pays(progresses):
    forth = EnsembleCritic([ScriptedCritic(progresses=[p]) for p in progresses])
    back = EnsembleCritic([ScriptedCritic(progresses=[-p]) for p in progresses])
    pair = FRAMES[:1], FRAMES[1:2], TASKS[:1]
    assert float(forth.progress(*pair)[0]) + float(back.progress(*pair)[0]) <= 0.0


def test_by_default_all_must_say_done_and_a_regress_counts_as_soon_as_one_sees_it():
    members = [
        ScriptedCritic([0.75, 0.5, 1.0], [0.5, -0.5, 0.25], [[0.0, 0.5, 0.25]]),
        ScriptedCritic([0.25, 1.0, 1.0], [-0.25, -0.125, 0.5], [[0.0, 0.25, 0.75]]),
    ]
    critic = EnsembleCritic(members)
    assert critic.success_prob(FRAMES, TASKS).tolist() == [0.25, 0.5, 1.0]
    assert critic.progress(FRAMES, FRAMES, TASKS).tolist() == [-0.25, -0.5, 0.25]
    assert critic.value(FRAMES, "stack").tolist() == [0.0, 0.25, 0.25]
    asked = [CriticCall("success_prob", 3), CriticCall("progress", 3), CriticCall("value", 3)]
    assert [member.calls for member in members] == [asked, asked]


def test_values_may_be_combined_otherwise_than_done_answers():
    members = [ScriptedCritic([p], [p], [[0.0, p]]) for p in (0.25, 0.5, 1.0)]
    critic = EnsembleCritic(members, "median", combine_values="min")
    assert ask(critic) == 0.5
    assert critic.progress(FRAMES[:1], FRAMES[1:2], TASKS[:1]).tolist() == [0.25]
    assert critic.value(FRAMES[:2], "stack").tolist() == [0.0, 0.25]
    assert EnsembleCritic(members).combine_values == "min"


def test_no_frames_no_answers():
    critic = EnsembleCritic([OracleCritic(), ScriptedCritic()])
    assert critic.success_prob([], []).shape == (0,)
    assert critic.progress([], [], []).shape == (0,)
    assert critic.values([], []) == []


@pytest.mark.parametrize(
    ("probs", "message"),
    [
        (
            [1.5, 0.5, 0.5],
            r"Expected success_prob of member 2 \(scripted\) in \[0, 1\] from the critic, got 1.5 at index 0",
        ),
        (
            [0.5, float("nan"), 0.5],
            r"of member 2 \(scripted\) in \[0, 1\] from the critic, got nan at index 1",
        ),
    ],
)
def test_a_bad_answer_is_not_hidden_by_a_good_one(probs, message):
    critic = EnsembleCritic([ScriptedCritic([0.25] * 3), ScriptedCritic(probs)])
    with pytest.raises(CriticResponseError, match=message):
        critic.success_prob(FRAMES, TASKS)


def test_answers_of_another_shape_are_refused():
    critic = EnsembleCritic([ScriptedCritic(values=[[0.0, 0.5]]), ScriptedCritic(values=[[0.0, 0.5, 1.0]])])
    with pytest.raises(CriticResponseError, match=r"value of member 1 \(scripted\) of shape \(3,\)"):
        critic.value(FRAMES, "stack")
    short = Table([], [], [[0.0, 0.5, 1.0]])
    with pytest.raises(CriticResponseError, match=r"Expected 2 value lists from member 1 \(table\), got 1"):
        EnsembleCritic([short, short]).values([FRAMES, FRAMES], TASKS[:2])


def test_an_error_of_one_is_raised_and_the_rest_is_not_asked():
    last = ScriptedCritic([0.5])
    critic = EnsembleCritic([ScriptedCritic([0.5]), ScriptedCritic([CriticConnectionError("gone")]), last])
    with pytest.raises(CriticConnectionError, match="gone"):
        ask(critic)
    assert last.calls == []


class Looking(LookingCritic):
    """Sees pictures, and nothing that is not in them."""

    def _note(self, method, frames):
        super()._note(method, frames)
        assert all(type(frame) is np.ndarray for frame in frames)


@pytest.mark.parametrize("oracle", [OracleCritic, lambda: CriticWrapper(OracleCritic())])
def test_a_privileged_member_reads_the_simulator_and_the_others_see_pictures_alone(oracle):
    looking = Looking(done_share=1.1)  # says done to everything
    critic = EnsembleCritic([looking, oracle()])
    assert critic.describe().is_privileged
    env = build([partial(ShadedEnv, shade=i, success_steps=[2 + i]) for i in range(2)], critic)
    env.reset(seed=0)
    assert [env.step(actions(2))[1].tolist() for _ in range(3)] == [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
    assert [call for call in looking.calls if call[0] == "success_prob"] == [("success_prob", 2)] * 2 + [
        ("success_prob", 1)
    ]


def test_a_spec_rewards_in_the_wrapper():
    env = VLACRewardWrapper(
        ScriptedEnv(success_steps=[3], max_episode_steps=5), "ensemble:oracle|scripted:1,1,1,0.5"
    )
    env.reset(seed=0)
    steps = [env.step(env.action_space.sample()) for _ in range(3)]
    assert [step[1:3] for step in steps] == [(0.0, False), (0.0, False), (1.0, True)]
    assert steps[-1][4]["critic"]["success_prob"] == 1.0


def test_it_is_recorded_and_its_members_may_be_records(tmp_path):
    critic = EnsembleCritic([LookingCritic(), RecordedCritic(LookingCritic(), tmp_path / "member.jsonl")])
    answer = RecordedCritic(critic, tmp_path / "all.jsonl").success_prob(FRAMES, TASKS)
    replayed = ReplayedCritic(tmp_path / "all.jsonl")
    assert replayed.success_prob(FRAMES, TASKS).tolist() == answer.tolist()
    assert replayed.describe().fingerprint == critic.describe().fingerprint
    member = f"recorded:{tmp_path / 'member.jsonl'}"
    again = make_critic(f"ensemble:{member}|{member}")
    assert again.success_prob(FRAMES, TASKS).tolist() == answer.tolist()


def test_it_says_who_its_members_are():
    first = Declaring(name="a", model="/m", prompt_version="v3", device="cuda:0")
    second = Declaring(name="b", prompt_version="v3", device="cpu", is_privileged=True)
    info = EnsembleCritic([first, second], combine_values="mean").describe()
    assert (info.name, info.model, info.prompt_version, info.device, info.is_privileged) == (
        "ensemble",
        "a /m + b",
        "v3",
        "cuda:0, cpu",
        True,
    )
    details = json.loads(json.dumps(info.details))
    assert (details["combine"], details["combine_values"]) == ("min", "mean")
    assert [(own["name"], own["fingerprint"]) for own in details["members"]] == [
        ("a", first.info.fingerprint),
        ("b", second.info.fingerprint),
    ]


def test_the_fingerprint_follows_from_the_members_in_order_and_how_they_are_combined():
    a, b = Declaring(name="a"), Declaring(name="b")
    others = [
        EnsembleCritic([b, a]),
        EnsembleCritic([a, a]),
        EnsembleCritic([a, b, b]),
        EnsembleCritic([a, b], "mean"),
        EnsembleCritic([a, b], combine_values="mean"),
    ]
    same = [EnsembleCritic([Declaring(name="a", device="cuda:0"), b]), EnsembleCritic([a, b], "min", "min")]
    fingerprint = EnsembleCritic([a, b]).describe().fingerprint
    assert [critic.describe().fingerprint for critic in same] == [fingerprint] * 2
    assert len({fingerprint, *(critic.describe().fingerprint for critic in others)}) == 6


def test_it_knows_what_all_of_them_know():
    first = Declaring(
        knows=CriticKnowledge(tasks=("a", "b", "c"), views=("agentview",), inputs=("references",))
    )
    second = Declaring(knows=CriticKnowledge(tasks=("c", "b"), task_suites=("libero_goal",), inputs=()))
    assert EnsembleCritic([first, second, Declaring()]).describe().knows == CriticKnowledge(
        tasks=("b", "c"), task_suites=("libero_goal",), views=("agentview",), inputs=()
    )


def test_a_member_answers_for_the_pictures_that_it_shows_itself():
    narrow = CriticKnowledge(inputs=())
    own = Declaring(inputs=("references",))
    assert EnsembleCritic([own, Declaring(knows=narrow)]).describe().inputs == ()
    unfit = Declaring(inputs=("goal_image", "references"), knows=CriticKnowledge(inputs=("references",)))
    assert EnsembleCritic([own, unfit]).describe().inputs == ("goal_image",)


def test_it_takes_references_where_all_do():
    reading = [Declaring(details={"num_references": count}) for count in (0, 9)]
    assert EnsembleCritic(reading).describe().details["num_references"] == 9
    assert "num_references" not in EnsembleCritic([*reading, Declaring()]).describe().details


def test_each_is_identified_and_warmed_up():
    members, log = declaring("a", "b")
    critic = EnsembleCritic(members)
    assert critic.identify(retry=False).model == "a identified + b identified"
    critic.identify()
    critic.warm_up()
    assert log == [
        f"{name} {what}" for what in ("identify at once", "identify", "warm_up") for name in ("a", "b")
    ]


def test_counts_and_places_are_those_of_all():
    members = [Declaring(), Declaring(is_remote=True)]
    critic = EnsembleCritic(members)
    assert (critic.retries, critic.failovers, critic.failbacks, critic.is_remote) == (4, 6, 2, True)
    assert not EnsembleCritic(members[:1] * 2).is_remote
    members[1].takes_concurrent_calls = True
    assert not EnsembleCritic(members).takes_concurrent_calls
    assert EnsembleCritic(members[1:] * 2).takes_concurrent_calls


def test_those_sleep_that_can():
    members, log = declaring("a", "b", "c")
    members[1]._can_sleep = False
    critic = EnsembleCritic(members)
    assert critic.can_sleep
    critic.sleep()
    critic.wake()
    assert log == ["a sleep", "c sleep", "a wake", "c wake"]


def test_without_one_that_can_sleep_none_does():
    critic = EnsembleCritic([OracleCritic(), OracleCritic()])
    assert not critic.can_sleep
    for method in (critic.sleep, critic.wake):
        with pytest.raises(ConfigError, match=r"'ensemble' \(EnsembleCritic\), whose can_sleep is False"):
            method()


@pytest.mark.parametrize(("method", "undone"), [("sleep", "wake"), ("wake", "sleep")])
def test_where_one_fails_to_sleep_or_wake_those_before_it_are_switched_back(method, undone):
    members, log = declaring("a", "b", "c", "d")
    members[2].fails = (method,)
    with pytest.raises(CriticConnectionError, match=f"c can't {method}"):
        getattr(EnsembleCritic(members), method)()
    assert log == [f"a {method}", f"b {method}", f"c {method}", f"b {undone}", f"a {undone}"]


@pytest.mark.parametrize(
    ("members", "held"),
    [
        ([Declaring(held=3), Declaring(held=4)], 7),
        ([Declaring(held=3), Declaring()], 3),
        ([Declaring(), Declaring()], None),
        ([Declaring(held=3), Declaring(device="cuda:0")], None),
        ([Declaring(held=3), Declaring(is_remote=True)], None),
    ],
    ids=["all tell", "a CPU holds none", "nobody tells", "a GPU that is not told", "an old server"],
)
def test_gpu_memory_adds_up_where_it_is_known(members, held):
    assert EnsembleCritic(members).gpu_memory_bytes() == held


def test_all_are_closed_even_if_one_can_not_be():
    members, log = declaring("a", "b", "c")
    members[0].fails = ("close",)
    with pytest.raises(CriticConnectionError, match="a can't close"):
        EnsembleCritic(members).close()
    assert log == ["a close", "b close", "c close"]


def test_members_of_a_spec_keep_their_own_options():
    critic = make_critic(
        "ensemble: noisy_oracle:tpr=0.8,fpr=0.05 | http://a:8400,http://b:8400?timeout_s=5,encoding=png | scripted:0.5"
    )
    oracle, remote, scripted = critic.members
    assert oracle.describe().details["tpr"] == 0.8
    assert repr(remote) == "RemoteCritic('http://a:8400,http://b:8400')"
    assert (remote._config.timeout_s, remote._config.encoding) == (5.0, "png")
    assert ask(scripted) == 0.5
    assert (critic.combine, critic.combine_values) == ("min", "min")


def test_the_ensembles_own_options_stand_behind_a_last_bar():
    critic = make_critic("ensemble:scripted:0.25|scripted:0.75|?combine=mean,combine_values=median")
    assert (ask(critic), critic.combine_values) == (0.5, "median")
    assert make_critic("ensemble:scripted:0|scripted:1", combine="mean").combine == "mean"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("ensemble:", "Expected a spec ensemble:SPEC|SPEC, got an empty one among ['']"),
        ("ensemble:oracle||nano", "got an empty one among ['oracle', '', 'nano']"),
        ("ensemble:oracle", "Expected two or more critics for an ensemble, got ['oracle']"),
        ("ensemble:oracle|?combine=mean", "Expected two or more critics for an ensemble, got ['oracle']"),
        ("ensemble:oracle|orakle", "Unknown critic 'orakle'"),
        ("ensemble:oracle|oracle|?combine=max", "Unknown combine 'max'. Available: mean, median, min"),
        ("ensemble:oracle|oracle|?combine_values=sum", "Unknown combine_values 'sum'"),
        ("ensemble:oracle|oracle|?members=3", "Unknown ensemble:SPEC|SPEC option 'members'"),
        (
            "ensemble:oracle|scripted:1|noisy_oracle:tpr=2",
            "Member 3 of the ensemble, 'noisy_oracle:tpr=2': Expected noisy_oracle tpr in [0, 1], got 2.0.",
        ),
        (
            "ensemble:oracle|oracle?combine=mean",
            "The ensemble's own options stand behind a last '|', as in 'ensemble:nano|oracle|?combine=mean'.",
        ),
    ],
)
def test_a_spec_that_does_not_fit_is_refused(spec, message):
    with pytest.raises(ConfigError) as raised:
        make_critic(spec)
    assert message in str(raised.value)


def test_other_keywords_and_what_is_no_list_of_critics_are_refused():
    with pytest.raises(
        ConfigError, match=r"Unknown ensemble option 'references'\. Available: combine, combine_values"
    ):
        make_critic("ensemble:oracle|oracle", references=FRAMES)
    with pytest.raises(
        ConfigError, match=r"Expected two or more critics for an ensemble, got 'oracle\|nano'"
    ):
        EnsembleCritic("oracle|nano")
    with pytest.raises(ConfigError, match="got 3, which lacks success_prob"):
        EnsembleCritic([OracleCritic(), 3])


def test_what_was_built_of_specs_is_closed_where_a_later_one_can_not_be_built(monkeypatch):
    monkeypatch.setattr(own_critics, "closed", 0)
    given, log = declaring("given")
    with pytest.raises(ConfigError, match="Member 3 of the ensemble"):
        EnsembleCritic(["own_critics:closing", *given, "recorded:absent.jsonl"])
    assert (own_critics.closed, log) == (1, [])
