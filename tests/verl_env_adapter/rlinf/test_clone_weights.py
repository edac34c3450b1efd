"""RLinf's checkpoint of the clone policy becomes a policy's folder."""

import pytest

torch = pytest.importorskip("torch")

from verl_env_adapter.rlinf.clone_weights import export_policy  # noqa: E402
from vlac_gym.clone.policy import ClonePolicy, load_policy, save_policy  # noqa: E402
from vlac_gym.errors import ConfigError  # noqa: E402

TASKS = ["libero_spatial:3"]


def small(seed, **options):
    torch.manual_seed(seed)
    return ClonePolicy(TASKS, chunk_size=2, image_size=16, **options)


@pytest.fixture
def start(tmp_path):
    save_policy(small(0), tmp_path / "start")
    return tmp_path / "start"


@pytest.mark.parametrize("has_offset", [False, True])
def test_trained_weights_are_all_but_the_value_head(tmp_path, start, has_offset):
    trained = small(1, has_offset=has_offset)
    weights = {f"policy.{name}": value for name, value in trained.state_dict().items() if "value" not in name}
    torch.save(weights | {"value_head.0.weight": torch.zeros(1)}, tmp_path / "full_weights.pt")
    export_policy(tmp_path / "full_weights.pt", start, tmp_path / "out")
    got, begun = load_policy(tmp_path / "out").state_dict(), load_policy(start).state_dict()
    assert set(got) == set(trained.state_dict())
    for name, value in got.items():
        expected = begun[name] if name.startswith("value.") else trained.state_dict()[name]
        torch.testing.assert_close(value, expected)


def test_what_is_no_checkpoint_of_the_policy_is_refused(tmp_path, start):
    with pytest.raises(ConfigError, match=r"full_weights\.pt, found no file"):
        export_policy(tmp_path / "missing.pt", start, tmp_path / "out")
    torch.save({"policy.log_std": torch.zeros(7)}, tmp_path / "full_weights.pt")
    with pytest.raises(
        ConfigError, match=r"Expected weights of the same policy in .*full_weights\.pt, as .*start has them"
    ):
        export_policy(tmp_path / "full_weights.pt", start, tmp_path / "out")
    old = {f"policy.{name}": value for name, value in small(1).state_dict().items() if name != "feature_mean"}
    torch.save(old, tmp_path / "full_weights.pt")
    with pytest.raises(ConfigError, match=r"Expected feature_mean.* in .*full_weights\.pt.* Clone again"):
        export_policy(tmp_path / "full_weights.pt", start, tmp_path / "out")
    assert not (tmp_path / "out").exists()
