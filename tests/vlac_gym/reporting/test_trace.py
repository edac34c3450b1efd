import dataclasses
import json

from vlac_gym.reporting.trace import EpisodeTrace


def test_summary_holds_the_facts_of_the_episode(train_trace):
    summary = train_trace(num_steps=4).summary()

    assert summary == {
        "task_suite": "libero_spatial",
        "task_id": 0,
        "task": "stack",
        "init_state_id": 3,
        "mode": "train",
        "steps": 4,
        "terminated": True,
        "truncated": False,
        "return": 1.0,
        "success": True,
        "sim_success_step": 3,
        "critic_done_step": 4,
        "critic": {
            "name": "oracle",
            "is_privileged": True,
            "calls": 4,
            "failures": 0,
            "latency_ms_mean": 2.0,
            "values": [0.0, 0.75],
            "value_frame_steps": [0, 4],
            "values_for": "plot",
            "stopped_by": "success_prob",
            "success_prob_last": 0.95,
        },
        "wall_s": 1.5,
    }
    assert json.loads(json.dumps(summary)) == summary


def test_eval_episode_has_no_critic_done_step_and_no_probabilities(eval_trace):
    trace = eval_trace()

    assert trace.critic_done_step is None
    assert trace.success_probs == ([], [])
    assert trace.summary()["critic"]["success_prob_last"] is None


def test_step_limit_is_not_the_critic_saying_done(train_trace):
    trace: EpisodeTrace = train_trace()
    at_limit = dataclasses.replace(trace, critic=dataclasses.replace(trace.critic, stopped_by="step_limit"))

    assert at_limit.critic_done_step is None


def test_step_rows_are_one_json_object_per_step(train_trace):
    rows = train_trace(num_steps=2).step_rows()

    assert rows[1] == {
        "step": 2,
        "action": [0.5, -1.0],
        "reward": 1.0,
        "terminated": True,
        "truncated": False,
        "success_prob": 0.95,
        "latency_ms": 2.0,
        "sim_success": True,
        "goal_progress": 1.0,
    }
    assert len(rows) == 2


def test_label_names_a_privileged_critic_as_privileged(train_trace):
    assert "privileged" in train_trace(is_privileged=True).critic.label
    assert train_trace(is_privileged=False).critic.label == "oracle"
