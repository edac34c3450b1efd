"""The trainer learns a task that can be seen in the picture, saves a loadable critic, and resumes."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from vlac_gym.cli import main
from vlac_gym.critic import make_critic
from vlac_gym.critic.nano.factory import CHECKPOINT
from vlac_gym.critic.vlac.tiny_checkpoint import ModelSizes
from vlac_gym.data.dataset import EpisodeDataset
from vlac_gym.data.episodes import Episode, EpisodeMeta, write_episode
from vlac_gym.errors import ConfigError
from vlac_gym.frames.codec import EncodedFrames, encode_frame
from vlac_gym.train_nano.recipe import TrainRecipe
from vlac_gym.types import CriticKnowledge

torch = pytest.importorskip("torch")

SIZES = ModelSizes(
    image_size=28, vision_layers=1, vision_width=32, vision_heads=2, vision_mlp=64, text_layers=2, text_width=64,
    text_heads=1, text_kv_heads=1, head_dim=64, text_mlp=128, max_positions=512,
)  # fmt: skip
TASK = "make it bright"


def frame(progress: float) -> np.ndarray:
    return np.full((16, 16, 3), int(20 + 220 * progress), np.uint8)


def write_data(root: Path, views: tuple[str, ...] = ("agentview",)) -> None:
    for init_state_id in range(6):
        for seed, last in enumerate((1.0, 0.6)):
            progress = np.linspace(0.0, last, 12, dtype=np.float32)
            write_episode(
                root,
                Episode(
                    meta=EpisodeMeta(
                        "suite",
                        0,
                        TASK,
                        init_state_id,
                        "expert",
                        seed=seed,
                        details={"renderer": "crayon 1"},
                    ),
                    actions=np.zeros((11, 7), np.float32),
                    states=np.zeros((12, 8), np.float32),
                    success=progress == 1.0,
                    goal_progress=progress,
                    stages=np.full(12, ""),
                    frame_steps=np.arange(12, dtype=np.int32),
                    frames=dict.fromkeys(
                        views,
                        EncodedFrames.from_bytes([encode_frame(frame(p), "png") for p in progress]),
                    ),
                ),
            )


def recipe(steps: int) -> TrainRecipe:
    return TrainRecipe(
        steps=steps,
        done_batch=16,
        pair_batch=8,
        learning_rate=3e-3,
        warmup_steps=10,
        validate_every=50,
        val_init_states=(5,),
        max_jitter=0.0,
        max_shift=2,
        ema_decay=0.9,
    )


def test_training_learns_saves_and_resumes(tmp_path):
    from vlac_gym.train_nano.trainer import train_nano

    write_data(tmp_path / "data")
    train_nano(tmp_path / "data", tmp_path / "run", recipe(50), sizes=SIZES, device="cpu")
    with pytest.raises(ConfigError, match=r"holds checkpoint, log\.jsonl, state\.pt; .*--resume"):
        train_nano(tmp_path / "data", tmp_path / "run", recipe(150), sizes=SIZES, device="cpu")
    other = dataclasses.replace(recipe(150), learning_rate=0.1)
    with pytest.raises(ConfigError, match=r"another recipe: learning_rate was 0\.003, is 0\.1"):
        train_nano(tmp_path / "data", tmp_path / "run", other, sizes=SIZES, device="cpu", resume=True)
    steps = []
    checkpoint = train_nano(
        tmp_path / "data",
        tmp_path / "run",
        recipe(150),
        sizes=SIZES,
        device="cpu",
        resume=True,
        on_step=steps.append,
    )
    assert steps == list(range(50, 151))
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in log] == [50, 100, 150]
    assert log[-1]["done_loss"] < log[0]["done_loss"]
    with pytest.raises(ConfigError, match="other sizes"):
        train_nano(tmp_path / "data", tmp_path / "run", recipe(151), device="cpu", resume=True)

    critic = make_critic(f"transformers:{checkpoint}", device="cpu")
    assert critic.describe().knows == CriticKnowledge(
        tasks=(TASK,), task_suites=("suite",), views=("agentview",), inputs=(), renderers=("crayon 1",)
    )
    probs = critic.success_prob([frame(0.0), frame(0.4), frame(1.0)], [TASK] * 3)
    assert probs[2] > 0.5 > probs[1]
    assert probs[0] < 0.1
    progress = critic.progress([frame(0.0)], [frame(0.5)], [TASK])
    assert -1.0 <= progress[0] <= 1.0
    critic.close()


@pytest.mark.slow
def test_the_shipped_critic_goes_on_with_fresh_episodes_and_gets_cards_before_and_after(tmp_path, capsys):
    write_data(tmp_path / "bank")
    write_data(tmp_path / "own")
    for episode in EpisodeDataset.open(tmp_path / "bank")[:2]:
        write_episode(tmp_path / "held_out", episode)
    settings = {
        "start-from": "nano", "fresh-share": "0.5", "steps": "1", "done-batch": "4", "pair-batch": "2",
        "val-init-states": "5",
    }  # fmt: skip
    code = main(
        [
            *("train-critic", "--data", str(tmp_path / "bank"), str(tmp_path / "own"), "--device", "cpu"),
            *("--out", str(tmp_path / "run"), "--held-out", str(tmp_path / "held_out")),
            *(word for name, value in settings.items() for word in (f"--recipe.{name}", value)),
        ]
    )
    checkpoint = tmp_path / "run" / "checkpoint"
    assert json.loads((checkpoint / "knowledge.json").read_text())["tasks"] == [
        TASK
    ]  # what it was trained on now
    size = (checkpoint / "model.safetensors").stat().st_size
    assert size == (CHECKPOINT / "model.safetensors").stat().st_size
    compared = json.loads((tmp_path / "run" / "comparison.json").read_text())
    assert [spec.partition("?")[0] for spec in compared["critics"].values()] == [
        f"transformers:{CHECKPOINT}", f"transformers:{checkpoint}",
    ]  # fmt: skip
    assert code == int("fell" in [change["verdict"] for change in compared["changes"]])
    assert "comparison.html" in capsys.readouterr().out


def test_a_checkpoint_that_is_not_there_is_refused(tmp_path):
    from vlac_gym.train_nano.trainer import _checkpoint, train_nano

    assert _checkpoint("nano") == CHECKPOINT
    with pytest.raises(ConfigError, match="a checkpoint folder, or 'nano', got 'nanu'"):
        train_nano(tmp_path, tmp_path / "run", dataclasses.replace(recipe(1), start_from="nanu"))


def test_a_critic_trained_on_pictures_of_unknown_origin_claims_no_renderer(tmp_path):
    from vlac_gym.train_nano.trainer import knowledge_of

    write_data(tmp_path)
    first, second = list(EpisodeDataset.open(tmp_path))[:2]
    silent = dataclasses.replace(second, meta=dataclasses.replace(second.meta, details={}))
    assert knowledge_of([first, second]).renderers == ("crayon 1",)
    assert knowledge_of([first, silent]).renderers is None


def test_a_run_from_before_a_setting_existed_goes_on(tmp_path):
    from vlac_gym.train_nano.trainer import train_nano

    write_data(tmp_path / "data")
    how = {"sizes": SIZES, "device": "cpu"}
    train_nano(tmp_path / "data", tmp_path / "run", recipe(2), **how)
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    settings = json.loads(state["recipe"])
    del settings["all_views"]
    torch.save(state | {"recipe": json.dumps(settings)}, tmp_path / "run" / "state.pt")
    other = dataclasses.replace(recipe(3), all_views=True)
    with pytest.raises(ConfigError, match="all_views was False, is True"):
        train_nano(tmp_path / "data", tmp_path / "run", other, resume=True, **how)
    train_nano(tmp_path / "data", tmp_path / "run", recipe(3), resume=True, **how)
    assert torch.load(tmp_path / "run" / "state.pt", weights_only=True)["step"] == 3


@pytest.mark.parametrize(("all_views", "views"), [(False, ("agentview",)), (True, ("agentview", "wrist"))])
def test_a_critic_knows_the_views_that_it_was_trained_on(tmp_path, all_views, views):
    from vlac_gym.critic.knowledge import read_knowledge
    from vlac_gym.train_nano.trainer import train_nano

    write_data(tmp_path / "data", views=("agentview", "wrist"))
    short = dataclasses.replace(recipe(1), all_views=all_views)
    checkpoint = train_nano(tmp_path / "data", tmp_path / "run", short, sizes=SIZES, device="cpu")
    assert read_knowledge(checkpoint).views == views


def test_training_learns_from_reworded_prompts_and_relit_pictures(tmp_path):
    from vlac_gym.train_nano.trainer import train_nano

    write_data(tmp_path / "data")
    plain = train_nano(tmp_path / "data", tmp_path / "plain", recipe(50), sizes=SIZES, device="cpu")
    augmented = dataclasses.replace(
        recipe(100), reword_share=0.7, max_relight=0.1, start_from=str(plain), validate_every=50
    )
    checkpoint = train_nano(tmp_path / "data", tmp_path / "run", augmented, sizes=SIZES, device="cpu")
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    facts = json.loads((checkpoint / "training.json").read_text())
    assert [row["step"] for row in log] == [50, 100]
    best = max(log, key=lambda row: row["score"] + row["reworded_score"])
    assert facts["step"] == best["step"]
    assert facts["validation"]["score"] == best["score"]
    assert facts["reworded_validation"]["score"] == best["reworded_score"] != best["score"]
    assert "reworded_score" not in (tmp_path / "plain" / "log.jsonl").read_text()

    critic = make_critic(f"transformers:{checkpoint}", device="cpu")
    wordings = [TASK, f"please {TASK}", f"{TASK[0].upper()}{TASK[1:]}.", TASK.upper()]
    assert min(critic.success_prob([frame(1.0)] * 4, wordings)) > 0.5
    assert max(critic.success_prob([frame(0.0)] * 4, wordings)) < 0.5
    critic.close()
