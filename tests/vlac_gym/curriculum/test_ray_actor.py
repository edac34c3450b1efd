"""The curriculum in a Ray actor: results from other processes, and reports that never wait."""

import gc
import os
import pickle
import subprocess
import sys
import time
import warnings

import pytest

from vlac_gym.curriculum import CurriculumConfig, CurriculumManager, EpisodeResult
from vlac_gym.curriculum.ray_actor import RayCurriculum, _CurriculumActor
from vlac_gym.envs.scripted import ScriptedEnv
from vlac_gym.errors import ConfigError, DependencyNotInstalled, VlacGymError
from vlac_gym.rollout import PipelinedRollout
from vlac_gym.vector import RolloutVectorEnv
from vlac_gym.wrappers.vector import CurriculumWrapper, VLACRewardWrapper


class FakeRay:
    """Ray's calls without Ray: a reference is done once `finish` says so, and then holds a value or an error."""

    class exceptions:
        class RayError(Exception):
            pass

        class GetTimeoutError(RayError):
            pass

        class RayTaskError(RayError):
            pass

    class Method:
        def __init__(self, ray, function):
            self.ray, self.function = ray, function

        def remote(self, *args):
            return self.ray.submit(self.function, args)

    def __init__(self, manager):
        self.manager = manager
        self.describe = self.Method(self, lambda: (manager.task_ids, manager.config))
        self.report_results = self.Method(self, manager.report_results)
        self.is_stuck = False
        self.jobs = []

    def submit(self, function, args):
        job = {"function": function, "args": args, "done": False, "error": None, "value": None}
        self.jobs.append(job)
        if not self.is_stuck:
            self.finish(job)
        return job

    def finish(self, job):
        if job["error"] is None:
            job["value"] = job["function"](*job["args"])
        job["done"] = True

    def wait(self, jobs, num_returns, timeout):
        assert timeout == 0 or not self.is_stuck, "a report waited"
        return [j for j in jobs if j["done"]], [j for j in jobs if not j["done"]]

    def get(self, job, timeout=None):
        assert job["done"], "a report waited"
        if job["error"] is not None:
            raise job["error"]
        return job["value"]


@pytest.fixture
def fake(monkeypatch):
    manager = CurriculumManager([0], 5, CurriculumConfig(alpha=0.5))
    ray = FakeRay(manager)
    monkeypatch.setattr("vlac_gym.curriculum.ray_actor._ray", lambda: ray)
    return ray


def successes(manager, n):
    return [EpisodeResult(a.assignment_id, True) for a in manager.get_batch(n)]


def test_reports_never_wait_and_messages_under_way_are_bounded(fake):
    curriculum = RayCurriculum(fake, max_in_flight=2)
    results = successes(fake.manager, 6)
    fake.jobs.clear()
    fake.is_stuck = True
    for result in results:
        curriculum.report_results([result])
    assert [len(job["args"][0]) for job in fake.jobs] == [1, 1]
    assert fake.manager.counts()["credited"] == 0
    fake.is_stuck = False
    for job in list(fake.jobs):
        fake.finish(job)
    curriculum.report_results([])  # what waited goes in one message
    assert [len(job["args"][0]) for job in fake.jobs] == [1, 1, 4]
    assert fake.manager.counts()["credited"] == 6
    assert (curriculum.num_dropped, curriculum.num_failed) == (0, 0)


def test_the_oldest_waiting_results_are_dropped_and_counted(fake):
    curriculum = RayCurriculum(fake, max_in_flight=1, max_waiting=2)
    results = successes(fake.manager, 5)
    fake.is_stuck = True
    for result in results:
        curriculum.report_results([result])
    assert curriculum.num_dropped == 2
    fake.is_stuck = False
    fake.finish(fake.jobs[-1])
    curriculum.flush()
    assert [r for job in fake.jobs[1:] for r in job["args"][0]] == [results[0], results[3], results[4]]


def test_a_message_that_fails_is_counted_and_not_raised(fake, caplog):
    curriculum = RayCurriculum(fake)
    results = successes(fake.manager, 2)
    fake.is_stuck = True
    curriculum.report_results(results[:1])
    fake.is_stuck = False
    fake.jobs[-1]["error"] = FakeRay.exceptions.RayError("the actor died")
    fake.finish(fake.jobs[-1])
    curriculum.report_results(results[1:])
    assert curriculum.num_failed == 1
    assert "did not process a report: the actor died" in caplog.text
    assert fake.manager.counts()["credited"] == 1


@pytest.mark.parametrize("limits", [{"max_in_flight": 0}, {"max_waiting": 0}, {"timeout_s": 0.0}])
def test_limits_out_of_range_are_refused(fake, limits):
    with pytest.raises(ConfigError, match="Expected max_in_flight and max_waiting >= 1"):
        RayCurriculum(fake, **limits)


def test_groups_that_learn_from_one_actor_are_refused(fake):
    groups = [
        CurriculumWrapper(
            VLACRewardWrapper(RolloutVectorEnv([ScriptedEnv], mode="sync"), "oracle"), RayCurriculum(fake)
        )
        for _ in range(2)
    ]
    with pytest.raises(ConfigError, match="the same RayCurriculum in groups 0 and 1"):
        PipelinedRollout(groups, lambda observations, infos, group: None)
    PipelinedRollout(groups, lambda observations, infos, group: None, overlap=False)


def test_a_missing_ray_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(DependencyNotInstalled, match=r'pip install "vlac-gym\[ray\]"'):
        RayCurriculum.start([0], 5)


def test_bad_options_are_refused_before_ray_is_loaded(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match="different task ids"):
        RayCurriculum.start([1, 1], 5)
    with pytest.raises(ConfigError, match="save_every >= 1"):
        RayCurriculum.start([1], 5, save_every=0)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"num_init_states": 5}, r"to have num_init_states \(5, 5\), got \(49, 49\)"),
        ({"num_init_states": [49, 5]}, r"to have num_init_states \(49, 5\), got \(49, 49\)"),
        ({"task_ids": [1, 0]}, r"to have task_ids \(1, 0\), got \(0, 1\)"),
        ({"config": CurriculumConfig(alpha=0.5)}, r"to have config CurriculumConfig\(.*alpha=0.5.*alpha=0.1"),
    ],
)
def test_a_saved_curriculum_is_not_taken_for_another(monkeypatch, tmp_path, change, text):
    monkeypatch.setitem(sys.modules, "ray", None)
    path = tmp_path / "c.json"
    CurriculumManager([0, 1], 49).save(path)
    asked = {"task_ids": [0, 1], "num_init_states": 49, "config": None} | change
    with pytest.raises(ConfigError, match=text):
        RayCurriculum.start(**asked, path=path)
    with pytest.raises(ConfigError, match=text):  # the actor itself, where only it sees the file
        _CurriculumActor(
            **asked | {"config": asked["config"] or CurriculumConfig()}, path=str(path), save_every=1
        )


def test_an_actor_goes_on_with_what_was_saved(tmp_path):
    path = tmp_path / "c.json"
    saved = CurriculumManager([0, 1], 49, CurriculumConfig(seed=3))
    saved.save(path)
    actor = _CurriculumActor([0, 1], [49, 49], CurriculumConfig(seed=3), str(path), 1)
    assert [a.reset_options() for a in actor.get_batch(20)] == [
        a.reset_options() for a in saved.get_batch(20)
    ]


def test_importing_the_ray_half_does_not_load_ray():
    code = "import sys, vlac_gym.curriculum.ray_actor; assert 'ray' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.fixture(scope="module")
def ray():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray = pytest.importorskip("ray", reason="needs vlac-gym[ray]")
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, object_store_memory=2**27)
    yield ray
    with warnings.catch_warnings():
        # Ray leaves its ended processes to the garbage collector, which complains.
        warnings.simplefilter("ignore", ResourceWarning)
        ray.shutdown()
        gc.collect()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
class TestRealRay:
    def test_it_draws_and_learns_as_the_manager_does(self, ray, tmp_path):
        config = CurriculumConfig(group_size=2, alpha=0.5, seed=4)
        here = CurriculumManager(range(4), 10, config)
        there = RayCurriculum.start(range(4), 10, config)
        assert (there.task_ids, there.config) == (here.task_ids, config)
        for _ in range(5):
            ours, theirs = here.get_batch(4), there.get_batch(4)
            assert [a.reset_options() for a in theirs] == [a.reset_options() for a in ours]
            here.report_results([EpisodeResult(a.assignment_id, a.task_id < 2) for a in ours])
            there.report_results([EpisodeResult(a.assignment_id, a.task_id < 2) for a in theirs])
            there.flush()
        assert there.success_rates() == here.success_rates()
        assert there.counts() == here.counts()
        assert there.metrics() == here.metrics()
        there.save(tmp_path / "c.json")
        assert CurriculumManager.load(tmp_path / "c.json").success_rates() == here.success_rates()
        with pytest.raises(ConfigError, match="multiple of group_size 2, got 3"):
            there.get_batch(3)
        there.stop()

    def test_results_from_other_processes_reach_one_curriculum(self, ray):
        curriculum = RayCurriculum.start([0, 1], 5, CurriculumConfig(alpha=0.5), name="tasks")
        same = RayCurriculum.connect("tasks")
        assert same == curriculum
        with pytest.raises(ConfigError, match="A curriculum 'tasks' can't be started"):
            RayCurriculum.start([0, 1], 5, name="tasks")

        @ray.remote(num_cpus=0.1)
        def play(connection):
            results = [EpisodeResult(a.assignment_id, True) for a in connection.get_batch(10)]
            connection.report_results(results)
            connection.report_results(results[:3])  # late and twice
            connection.flush()
            return os.getpid()

        pids = ray.get([play.remote(curriculum) for _ in range(3)])
        assert os.getpid() not in pids
        counts = same.counts()
        assert (counts["credited"], counts["duplicate"], counts["outstanding"]) == (30, 9, 0)
        curriculum.stop()
        with pytest.raises(VlacGymError, match="gone"):
            same.get_batch(1)
        with pytest.raises(ConfigError, match="No curriculum 'nothing'"):
            RayCurriculum.connect("nothing")

    def test_a_report_returns_while_the_actor_is_busy(self, ray):
        curriculum = RayCurriculum.start([0], 5, timeout_s=30.0, max_in_flight=1)
        results = [EpisodeResult(a.assignment_id, True) for a in curriculum.get_batch(200)]
        slow = curriculum._handle.__ray_call__.remote(lambda actor: time.sleep(3.0))
        begin = time.monotonic()
        for result in results:
            curriculum.report_results([result])
        assert time.monotonic() - begin < 1.0
        curriculum.flush()
        ray.get(slow)
        assert curriculum.counts()["credited"] == 200
        assert (curriculum.num_dropped, curriculum.num_failed) == (0, 0)
        curriculum.stop()

    def test_an_actor_that_dies_goes_on_from_its_file(self, ray, tmp_path):
        path = tmp_path / "curriculum.json"
        options = {"config": CurriculumConfig(alpha=0.5), "path": path, "save_every": 1}
        curriculum = RayCurriculum.start([0], 5, **options)
        (first,) = curriculum.get_batch(1)
        curriculum.report_results([EpisodeResult(first.assignment_id, True)])
        curriculum.flush()
        ray.kill(curriculum._handle, no_restart=False)
        deadline = time.monotonic() + 30
        while True:
            try:
                rates = curriculum.success_rates()
                break
            except VlacGymError:
                assert time.monotonic() < deadline
                time.sleep(0.2)
        assert rates == {0: 0.75}
        curriculum.stop()

    def test_a_pickled_connection_keeps_its_limits(self, ray):
        curriculum = RayCurriculum.start([0], 5, max_in_flight=3)
        copy = pickle.loads(pickle.dumps(curriculum))
        assert (copy == curriculum, copy == RayCurriculum.start([0], 5)) == (True, False)
        assert copy._max_in_flight == 3
        assert copy.get_batch(1)[0].task_id == 0
        curriculum.stop()
