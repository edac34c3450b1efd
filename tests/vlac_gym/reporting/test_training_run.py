import json

import numpy as np
import pytest
from PIL import Image

from vlac_gym.errors import ConfigError
from vlac_gym.metrics.writer import MetricsWriter
from vlac_gym.reporting.training_run import read_curves, write_training_report


@pytest.fixture
def run(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        writer.write(0, {"eval/success_rate": 0.2, "eval/episodes": 10})
        writer.write(
            100, {"env/success_rate": 0.3, "rollout/reward_mean": 0.5, "critic/alarm": None, "time/env": 3.0}
        )
        last = {"eval/success_rate": 0.5, "eval/episodes": 100, "env/success_rate": 0.4, "critic/alarm": 1.0}
        writer.write(200, last | {"rollout/reward_mean": 0.75, "time/env": 3.0, "time/critic": 2.0})
    config = {"algorithm": "ppo", "critic": "nano", "tasks": "libero_spatial:0", "note": "<b>"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def test_curves_hold_what_is_known(run):
    curves = read_curves(run)
    assert curves.of("env/success_rate") == ([100, 200], [0.3, 0.4])
    assert curves.of("critic/alarm") == ([200], [1.0])
    assert curves.first_and_last("rollout/reward_mean") == (0.5, 0.75)
    assert curves.first_and_last("critic/contrast") == (None, None)
    (_, *first), (step, rate, low, high, episodes) = curves.evaluations()
    assert first == pytest.approx([0.2, 0.05668, 0.50984, 10], abs=1e-4)
    assert (step, rate, episodes) == (200, 0.5, 100)
    assert (low, high) == pytest.approx((0.40383, 0.59617), abs=1e-5)


def test_the_page_says_what_a_reader_must_know(run):
    page = write_training_report(run).read_text()
    assert "first at env step 200" in page
    assert "held-out simulator success at the end" in page
    assert '6.0</td><td class="n">75 %' in page
    assert "&lt;b&gt;" in page
    assert "reads the simulator" not in page
    picture = np.asarray(Image.open(run / "learning.png").convert("RGB"))
    assert picture.shape == (924, 990, 3)
    assert picture.std() > 10


@pytest.mark.parametrize("critic", ["noisy_oracle:tpr=0.9", "ensemble:nano|oracle"])
def test_privileged_critics_and_toys_are_named(run, critic):
    config = {"critic": critic, "tasks": "reach:0"}
    (run / "config.json").write_text(json.dumps(config))
    page = write_training_report(run).read_text()
    assert "reads the simulator" in page
    assert "a toy without physics" in page


def test_a_folder_without_metrics_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="can't be read"):
        write_training_report(tmp_path)
    (tmp_path / "metrics.jsonl").touch()
    with pytest.raises(ConfigError, match="is empty"):
        write_training_report(tmp_path)
