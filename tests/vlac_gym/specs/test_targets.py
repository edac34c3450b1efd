"""What the text `module:name` names."""

import json

import pytest

from vlac_gym.specs.targets import load_target


def test_a_name_in_a_module_and_one_in_a_class():
    assert load_target("json:loads") is json.loads
    assert load_target("json.decoder:JSONDecoder.decode") is json.JSONDecoder.decode


@pytest.mark.parametrize(
    ("target", "error"), [("no_such_module:name", ImportError), ("json:no_such_name", AttributeError)]
)
def test_what_is_not_there_is_pythons_own_error(target, error):
    with pytest.raises(error, match=r"no_such_"):
        load_target(target)
