"""RLinf's config sections: what is read, what is refused, and that nothing trains without the extension."""

import pytest

from verl_env_adapter.rlinf.options import check_config, read_options
from verl_env_adapter.rlinf.plugin import get_env_class
from vlac_gym.errors import ConfigError

ENVIRON = {"RLINF_EXT_MODULE": "verl_env_adapter.rlinf.plugin"}


def section(block=None, **changes):
    plain = {
        "env_type": "libero",
        "task_suite_name": "vlac_gym",
        "max_episode_steps": 240,
        "vlac_gym": {"env": {"suite": "libero_goal", "chunk": 8}, **(block or {})},
    }
    return {key: value for key, value in (plain | changes).items() if value != "absent"}


class Config(dict):
    """As much of an OmegaConf root as the check uses."""

    __getattr__ = dict.__getitem__


class Node(dict):
    """A section that knows its own key, and the config around it, as OmegaConf's do."""

    def __init__(self, content, key, **root):
        super().__init__(content)
        self._key = lambda: key
        self._get_root = lambda: root


def config(train=None, evaluation=None, **changes):
    env = Config(train=train or section(), eval=evaluation or section(is_eval=True))
    model = {"num_action_chunks": 8}
    return Config(env=env, runner={"val_check_interval": 5}, actor={"model": model}) | changes


def checked(**changes):
    check_config(Config(config(**changes)), ENVIRON)


def test_limit_and_filter_of_rlinf_reach_the_env():
    options = read_options(section(task_id_filter=[1, 2], group_size=4, seed=3))
    assert options.settings.env.max_episode_steps == 240
    assert options.settings.env.tasks == (1, 2)
    assert (options.group_size, options.seed, options.mode, options.is_eval) == (4, 3, "train", False)


@pytest.mark.parametrize(
    ("key", "changes", "adv_type", "masks"),
    [
        ("train", {}, "gae", True),
        ("train", {}, "GRPO", True),
        ("train", {}, "embodied_sac", False),
        ("train", {"auto_reset": True}, "gae", False),
        ("train", {"ignore_terminations": True}, "grpo", False),
        ("eval", {"is_eval": True}, "gae", False),
    ],
)
def test_the_algorithm_says_whether_rlinf_has_a_mask(key, changes, adv_type, masks):
    node = Node(section(**changes), key, algorithm={"adv_type": adv_type})
    assert read_options(node).masks_unjudged is masks


def test_a_section_by_itself_has_no_algorithm():
    assert read_options(section()).masks_unjudged is False
    assert read_options(Node(section(), "train")).masks_unjudged is False


def test_evaluation_is_the_simulators():
    assert read_options(section(is_eval=True)).mode == "eval"


def test_groups_need_fixed_starts():
    assert read_options(section(group_size=4, use_fixed_reset_state_ids=False)).group_size == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task_suite_name": "libero_goal"}, "task_suite_name 'vlac_gym'.*got 'libero_goal'"),
        ({"use_rel_reward": True}, "use_rel_reward: false, got True"),
        ({"reward_coef": 5.0}, "reward_coef: 1, got 5.0"),
        ({"use_step_penalty": True}, "use_step_penalty: false"),
        ({"max_episode_steps": None}, "max_episode_steps as an int"),
        ({"data_collection": {"enabled": True}}, "data_collection.enabled: false"),
        ({"block": {"env": {"max_episode_steps": 100}}}, "says max_episode_steps 240"),
        ({"block": {"env": {"tasks": [0]}}, "task_id_filter": [1]}, r"task_id_filter \[1\]"),
        ({"block": {"placement": {"env_resource": "sim"}}}, "env_resource is unknown to RLinf"),
        ({"block": {"crtic": {}}}, "Did you mean 'critic'"),
    ],
)
def test_keys_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        read_options(section(**changes))


def test_good_config_passes_on_the_driver():
    checked()


def test_driver_wants_the_extension_named():
    with pytest.raises(ConfigError, match=r"RLINF_EXT_MODULE in the environment, got none"):
        check_config(config(), {})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reward": {"use_reward_model": True}}, "reward.use_reward_model: false"),
        ({"evaluation": section()}, "env.eval.is_eval: true, got false"),
        ({"actor": {"model": {"num_action_chunks": 5}}}, "env.chunk 5 as in actor.model"),
        ({"train": section(max_episode_steps=244)}, "a multiple of the chunk 8, as RLinf does, got 244"),
        ({"train": section(auto_reset=True)}, "truncate_as_terminal: true beside env.train.auto_reset"),
    ],
)
def test_driver_refuses_what_would_train_on_something_else(changes, message):
    with pytest.raises(ConfigError, match=message):
        checked(**changes)


def clone_config(learn, reward_type, logprob_type):
    model = {"model_type": "vlac_clone", "num_action_chunks": 8, "learn": learn}
    algorithm = Config(reward_type=reward_type, logprob_type=logprob_type)
    return {"actor": {"model": model}, "algorithm": algorithm}


def test_clone_policys_draws_have_rewards_and_probabilities_of_their_own():
    checked(**clone_config("offset", "chunk_level", "chunk_level"))
    checked(**clone_config(None, "action_level", "action_level"))
    message = "algorithm.reward_type: chunk_level with actor.model.learn: offset, which draws once per chunk"
    with pytest.raises(ConfigError, match=message):
        checked(**clone_config("offset", "action_level", "chunk_level"))
    with pytest.raises(ConfigError, match=r"logprob_type: action_level with actor\.model.learn: all"):
        checked(**clone_config("all", "action_level", "chunk_level"))
    with pytest.raises(ConfigError, match=r"actor\.model\.learn 'ofset'.* Did you mean 'offset'"):
        checked(**clone_config("ofset", "chunk_level", "chunk_level"))


def test_section_and_phase_must_agree():
    assert read_options(Node(section(), key="train")).mode == "train"
    with pytest.raises(ConfigError, match=r"env.eval.is_eval: true, got False"):
        read_options(Node(section(), key="eval"))
    with pytest.raises(ConfigError, match=r"env.train.is_eval: false, got True"):
        read_options(Node(section(is_eval=True), key="train"))


def test_only_sections_with_our_block_get_our_env():
    pytest.importorskip("torch")
    from verl_env_adapter.rlinf.env import RolloutEnv

    choose = get_env_class(lambda env_type, cfg=None: f"RLinf's {env_type}")
    assert choose("libero", section()) is RolloutEnv
    assert choose("libero", {"task_suite_name": "libero_goal"}) == "RLinf's libero"
    assert choose("maniskill") == "RLinf's maniskill"
    with pytest.raises(ConfigError, match="a block vlac_gym beside task_suite_name"):
        choose("libero", section(vlac_gym="absent"))
