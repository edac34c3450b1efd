"""Score a recorded episode with a critic, without a simulator. See docs/critic.md.

    python examples/03_score_a_video.py --out /tmp/score

draws an episode (a red block is pushed to a green goal and slips once), scores it, and writes `score.png`,
`score.mp4` and `score.json`:

    first done frame         50
    final value              0.99
    value-order correlation  0.98
    negative rate            0.08

The critic here is VLAC's prompts and reading over a stand-in for the model that measures the block's distance
in the picture, so that the example runs anywhere in seconds. With a checkpoint and a video of your own:

    python examples/03_score_a_video.py --source episode.mp4 --task "put the bowl on the plate" \
        --critic transformers:/checkpoints/vlac-2b --out /tmp/score
"""

import argparse
import json
from pathlib import Path

import numpy as np

from vlac_gym.critic import Critic, make_critic
from vlac_gym.critic.engines.base import EngineRequest
from vlac_gym.critic.engines.scripted import ScriptedEngine
from vlac_gym.critic.vlac.critic import VLACCritic
from vlac_gym.frames.files import read_frames
from vlac_gym.reporting.curves import save_curves_png
from vlac_gym.reporting.episode_picture import picture_of_score
from vlac_gym.reporting.video import write_video
from vlac_gym.rule.episode_score import score_episode
from vlac_gym.types import Frame

GOAL_COLUMN = 200
NEAR_GOAL = 12
"""Pixels between block and goal below which the stand-in calls the task done."""


def draw_episode() -> list[Frame]:
    """60 pictures: the block goes right, slips back at frame 30, and reaches the goal."""
    columns = [*np.linspace(24, 130, 30), *np.linspace(125, 95, 5), *np.linspace(101, 197, 17), *[198] * 8]
    frames = []
    for column in columns:
        frame = np.full((224, 256, 3), (205, 190, 170), np.uint8)
        frame[90:134, GOAL_COLUMN - 22 : GOAL_COLUMN + 22] = (120, 180, 120)
        frame[96:128, round(column) - 16 : round(column) + 16] = (200, 40, 40)
        frames.append(frame)
    return frames


def answer_by_distance(request: EngineRequest) -> str:
    """Says what VLAC would say of these pictures if it measured distances."""
    distances = [_distance(frame) for frame in request.frames]
    if request.answer == "number":
        return "1" if distances[-1] < NEAR_GOAL else "0"
    before, after = distances[-2:]
    return f"{100 * (before - after) / max(before, after, 1):+.0f}"


def _distance(frame: Frame) -> float:
    is_red = (frame[..., 0] > 180) & (frame[..., 1] < 90)
    return float(GOAL_COLUMN - np.nonzero(is_red)[1].mean())


def main() -> None:
    """Reads or draws the episode, scores it and writes the three files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path, help="video or folder of pictures; drawn if absent")
    parser.add_argument("--task", default="push the red block onto the green square")
    parser.add_argument("--critic", help="critic spec; a stand-in if absent")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if args.out.exists() and any(args.out.iterdir()):
        parser.error(f"expected a new or empty folder for --out, {args.out} holds files")

    frames = list(read_frames(args.source).frames) if args.source else draw_episode()
    critic: Critic = (
        make_critic(args.critic) if args.critic else VLACCritic(ScriptedEngine(answer_by_distance))
    )
    try:
        score = score_episode(critic, frames, args.task)
    finally:
        critic.close()

    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "score.json").write_text(json.dumps(score.as_json(), indent=2))
    picture = picture_of_score(score, frames)
    save_curves_png(picture, args.out / "score.png")
    write_video(picture, args.out / "score.mp4")
    print(f"first done frame         {score.first_done_frame}")
    print(f"final value              {score.values[-1]:.2f}")
    print(f"value-order correlation  {score.value_order_correlation or 0:.2f}")
    print(f"negative rate            {score.negative_rate or 0:.2f}")


if __name__ == "__main__":
    main()
