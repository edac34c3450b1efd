"""Critics of a user's own."""

import numpy as np
import pytest

from vlac_gym.critic import make_critic
from vlac_gym.critic.registry import check_critic
from vlac_gym.errors import ConfigError


def test_a_factory_of_ones_own_makes_a_critic():
    check_critic("own_policies:critic?answer=0.75")
    critic = make_critic("own_policies:critic?answer=0.75")
    assert critic.success_prob([np.zeros((2, 2, 3), np.uint8)], ["lift"]).tolist() == [0.75]


def test_what_is_no_critic_is_refused():
    with pytest.raises(ConfigError, match=r"Expected a critic.* got 3, which lacks success_prob"):
        make_critic("own_policies:number")
    with pytest.raises(ConfigError, match=r"Unknown critic 'no_such_module'.*module:factory"):
        check_critic("no_such_module:make")
