"""One block for every trainer: what it accepts, and what it says of a typo."""

import json

import pytest

from verl_env_adapter.common.env_pool import EnvPool
from verl_env_adapter.common.env_stack import failure_policy_of
from verl_env_adapter.common.settings import load_settings, parse_settings, settings_from_environment
from vlac_gym.critic import CriticFailurePolicy, make_critic
from vlac_gym.errors import ConfigError

BLOCK = {
    "env": {"suite": "libero_object", "tasks": [0, 3], "cameras": ["agentview", "wrist"], "chunk": 8},
    "critic": {"spec": "http://critic:8400", "on_error": "truncate"},
    "rule": {"preset": "vlac", "done_threshold": 0.8, "done_interval": 8, "min_steps": 16},
    "truncate_as_terminal": True,
    "placement": {"envs_per_worker": 2},
}

WORLDS = {"backend": "warp", "scenes": "/scenes", "tasks": [3]}


def test_block_becomes_settings():
    settings = parse_settings(BLOCK)
    assert (settings.env.suite, settings.env.tasks, settings.env.chunk) == ("libero_object", (0, 3), 8)
    assert settings.critic.spec == "http://critic:8400"
    assert settings.truncate_as_terminal is True
    rule = settings.rule.resolve()
    assert (rule.done_threshold, rule.done_interval, rule.min_steps, rule.value_stride) == (0.8, 8, 16, 5)


def test_init_states_go_by_the_trainers_phase():
    env = parse_settings({"env": {"init_states": {"train": "0-2,7", "eval": "8"}}}).env
    assert env.init_states_in("train") == {0, 1, 2, 7}
    assert env.init_states_in("eval") == {8}
    assert parse_settings({"env": {"init_states": {"eval": "all"}}}).env.init_states_in("eval") is None
    assert parse_settings({}).env.init_states_in("train") is None


def test_block_is_not_changed():
    block = json.loads(json.dumps(BLOCK))
    parse_settings(block)
    assert block == BLOCK


def test_empty_block_has_defaults():
    settings = parse_settings({})
    assert (settings.mode, settings.env.suite, settings.critic.spec) == ("phase", "libero_spatial", "oracle")


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"critc": {}}, "key in the settings 'critc'.*Did you mean 'critic'"),
        ({"env": {"suit": "x"}}, "key in env 'suit'.*Did you mean 'suite'"),
        ({"critic": {"on_eror": "raise"}}, "Did you mean 'on_error'"),
        ({"rule": {"done_treshold": 0.5}}, "key in rule.*Did you mean 'done_threshold'"),
        ({"placement": {"env_per_worker": 1}}, "Did you mean 'envs_per_worker'"),
        ({"mode": "trian"}, "Did you mean 'train'"),
        ({"critic": {"spec": "oracle", "on_error": "ignore"}}, r"Unknown critic\.on_error 'ignore'"),
        ({"critic": {"spec": "noisy_oracle:tpr=2"}}, r"noisy_oracle tpr in \[0, 1\]"),
        ({"critic": {"spec": "nona"}}, "Unknown critic 'nona'"),
        ({"critic": {"on_error": {"then": "ignore"}}}, "Unknown on_critic_error 'ignore'"),
        ({"critic": {"on_error": {"retry": 2}}}, r"key in critic\.on_error 'retry'.*Did you mean 'retries'"),
        ({"critic": {"on_error": {"retries": -1}}}, "retries as an int >= 0"),
        (
            {"critic": {"on_error": {"fallbacks": ["http://two:8400?timeout_s=3"]}}},
            r"gives timeout_s\. Give critic\.timeout_s instead",
        ),
        ({"env": {"chunk": 0}}, r"env\.chunk as an int >= 1, got 0"),
        ({"env": {"chunk": True}}, r"env\.chunk as an int"),
        ({"env": {"tasks": []}}, "an empty list"),
        ({"env": {"cameras": [1]}}, r"env\.cameras as a list of names"),
        ({"env": {"init_states": "0-39"}}, r"as \{train: 0-39, eval: 40-49\} or null, got '0-39'"),
        ({"env": {"init_states": {"validate": "0"}}}, r"key in env\.init_states 'validate'"),
        (
            {"env": {"init_states": {"eval": [40]}}},
            r"env\.init_states\.eval as a text such as '0-39', got \[40\]",
        ),
        ({"env": {"init_states": {"eval": "40-x"}}}, r"env\.init_states\.eval as 'all', '0-4'"),
        (
            {"env": WORLDS | {"scenes": None}},
            r"env\.scenes with env\.backend: warp and only there, got 'warp' and None",
        ),
        ({"env": {"scenes": "s"}}, "only there, got 'mujoco' and 's'"),
        ({"env": WORLDS | {"tasks": None}}, "different env.tasks with env.backend: warp, got None"),
        ({"env": WORLDS | {"tasks": [3, 3]}}, r"got \[3, 3\]: a world keeps its task"),
        (
            {"env": WORLDS | {"id": "m:Env-v0"}},
            "Expected LIBERO with env.backend: warp, got env.id 'm:Env-v0'",
        ),
        (
            {"env": WORLDS | {"kwargs": {"pictures": "torch"}}},
            r"key in env\.kwargs with env\.backend: warp 'pictures'",
        ),
        ({"env": WORLDS | {"backend": "wrap"}}, "Did you mean 'warp'"),
        ({"env": []}, "env as a mapping"),
        ({"rule": {"truncate_as_terminal": True}}, "beside rule"),
        ({"rule": {"done_threshold": 1.5}}, r"done_threshold in \[0, 1\]"),
        ({"rule": {"preset": "vlca"}}, "Did you mean 'vlac'"),
        ({"critic": {"timeout_s": 5}}, "for critic servers"),
        ({"critic": {"spec": "http://c", "deadline_s": 0}}, r"critic\.deadline_s above 0"),
        ({"critic": {"spec": " "}}, r"critic\.spec such as"),
        ({"placement": {"step_timeout_s": "long"}}, "step_timeout_s above 0"),
        ({"truncate_as_terminal": 1}, "as true or false"),
        (
            {"env": WORLDS, "placement": {"env_resource": "sim"}},
            r"no placement\.env_resource with env\.backend: warp, got 'sim'",
        ),
        ([1], "as a mapping, got list"),
    ],
)
def test_mistakes_are_refused_by_name(block, message):
    with pytest.raises(ConfigError, match=message):
        parse_settings(block)


@pytest.mark.parametrize(
    ("mode", "phase", "expected"),
    [
        ("phase", "train", "train"),
        ("phase", "validate", "eval"),
        ("eval", "train", "eval"),
        ("train", "train", "train"),
    ],
)
def test_mode_follows_the_trainers_phase(mode, phase, expected):
    assert parse_settings({"mode": mode}).mode_in(phase) == expected


def test_critic_never_validates():
    with pytest.raises(ConfigError, match=r"mode: train\. Use mode: phase"):
        parse_settings({"mode": "train"}).mode_in("validate")


def test_critic_deadline_stays_below_the_trainers():
    # 8 steps, one check: 2 questions in 30 s, and a fifth of the time to spare: 0.8 * 30 / 2.
    options = parse_settings(BLOCK).critic_options(host_deadline_s=30.0)
    assert options == {"deadline_s": 12.0, "timeout_s": 6.0, "max_attempts": 10}
    assert parse_settings(BLOCK).critic_options()["deadline_s"] == 60.0


def test_on_error_is_a_policy_or_its_end():
    critic = parse_settings(BLOCK).critic
    assert critic.on_error == CriticFailurePolicy(then="truncate")
    assert parse_settings({"critic": {"on_error": None}}).critic.on_error == CriticFailurePolicy()
    policy = {"then": "truncate", "retries": 1, "fallbacks": ["http://two:8400"], "max_failed_share": 0.5}
    block = BLOCK | {"critic": {"spec": "http://critic:8400", "on_error": policy}}
    critic = parse_settings(block).critic
    assert critic.on_error == CriticFailurePolicy(**policy)
    assert critic.specs == ("http://critic:8400", "http://two:8400")


def test_retries_and_fallbacks_share_the_trainers_patience():
    policy = {"retries": 1, "fallbacks": ["http://two:8400"]}
    block = BLOCK | {"critic": {"spec": "http://critic:8400", "on_error": policy}}
    # As above, but each of the 2 questions is asked twice of each of 2 critics.
    assert parse_settings(block).critic_options(host_deadline_s=30.0)["deadline_s"] == 3.0
    client = failure_policy_of(parse_settings(block), 30.0).fallbacks[0]
    assert (repr(client), client._config.deadline_s) == ("RemoteCritic('http://two:8400')", 3.0)


def test_client_options_may_be_a_fallbacks_alone():
    critic = {"spec": "nano", "timeout_s": 3, "on_error": {"fallbacks": ["http://two:8400"]}}
    assert parse_settings({"critic": critic}).critic_options()["timeout_s"] == 3
    with pytest.raises(ConfigError, match="for critic servers"):
        parse_settings({"critic": critic | {"on_error": {"fallbacks": ["random"]}}})


def test_one_attempt_takes_no_longer_than_the_whole_question():
    block = BLOCK | {"critic": {"spec": "http://critic:8400", "deadline_s": 5.0, "timeout_s": 8.0}}
    assert parse_settings(block).critic_options()["timeout_s"] == 5.0


def test_critic_deadline_beyond_the_trainers_is_refused():
    block = BLOCK | {"critic": {"spec": "http://critic:8400", "deadline_s": 20}}
    with pytest.raises(ConfigError, match=r"at most 12\.0, got 20.*up to 2 times"):
        parse_settings(block).critic_options(host_deadline_s=30.0)
    assert parse_settings(block).critic_options(host_deadline_s=60.0)["deadline_s"] == 20


def test_critic_in_this_process_has_no_client_options():
    assert parse_settings({"critic": {"spec": "oracle"}}).critic_options(30.0) == {}


@pytest.mark.parametrize("name", ["block.json", "block.yaml"])
def test_settings_come_from_a_file(tmp_path, monkeypatch, name):
    pytest.importorskip("yaml")
    file = tmp_path / name
    file.write_text(json.dumps({"vlac_gym": BLOCK}))  # JSON is YAML.
    assert load_settings(file) == parse_settings(BLOCK)
    monkeypatch.setenv("VLAC_GYM_SETTINGS", str(file))
    assert settings_from_environment() == parse_settings(BLOCK)
    monkeypatch.delenv("VLAC_GYM_SETTINGS")
    assert settings_from_environment() is None


def test_file_names_itself_in_its_errors(tmp_path):
    file = tmp_path / "block.json"
    file.write_text('{"critc": {}}')
    with pytest.raises(ConfigError, match=r"block\.json: Unknown key"):
        load_settings(file)
    file.write_text("{")
    with pytest.raises(ConfigError, match="Expected JSON"):
        load_settings(file)
    with pytest.raises(ConfigError, match="Can't read"):
        load_settings(tmp_path / "none.json")


def test_a_servers_spec_may_carry_options_that_have_no_place_beside_it():
    critic = parse_settings({"critic": {"spec": "http://h:8400?encoding=png", "timeout_s": 3}})
    assert critic.critic.is_remote
    made = make_critic(critic.critic.spec, **critic.critic_options())
    assert (made._config.encoding, made._config.timeout_s) == ("png", 3)
    with pytest.raises(ConfigError, match=r"gives max_attempts. Give critic.max_attempts instead"):
        parse_settings({"critic": {"spec": "http://h:8400?max_attempts=2"}})
    with pytest.raises(ConfigError, match="Unknown http://HOST:PORT option 'retries'"):
        parse_settings({"critic": {"spec": "http://h:8400?retries=2"}})


def test_an_ensemble_of_servers_is_to_be_served_where_a_server_is_asked_for():
    critic = {"spec": "ensemble:http://one:8400|http://two:8400"}
    advice = r"Serve the ensemble .*: vlac-gym serve --critic 'ensemble:http://one:8400\|http://two:8400'$"
    with pytest.raises(ConfigError, match=rf"critic\.timeout_s is for critic servers.*{advice}"):
        parse_settings({"critic": critic | {"timeout_s": 5}})
    with pytest.raises(ConfigError, match=rf"The sleeper puts a critic server to sleep.*{advice}"):
        parse_settings({"critic": critic}).critic.require_server("The sleeper", instead="another")
    with pytest.raises(ConfigError, match=r"or give a server's URL\.$"):
        parse_settings({}).critic.require_server("The sleeper", instead="another")


def test_worlds_of_several_tasks_are_shared_out_evenly_to_neighbours():
    env = parse_settings({"env": WORLDS | {"tasks": [8, 0]}}).env
    assert env.tasks_of_worlds(4) == [8, 8, 0, 0]
    with pytest.raises(
        ConfigError, match=r"multiple of the 2 env\.tasks \[8, 0\] as number of worlds, .* got 3"
    ):
        env.tasks_of_worlds(3)


def test_several_tasks_of_worlds_are_for_trainers_whose_env_chooses_its_starts():
    settings = parse_settings({"env": WORLDS | {"tasks": [8, 0]}})
    with pytest.raises(ConfigError, match=r"one task with env\.backend: warp, got env\.tasks \[8, 0\]"):
        EnvPool(settings, 2)
