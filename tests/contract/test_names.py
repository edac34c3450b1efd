"""One type per idea: no two parts give the same name to different public classes."""

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]

FOR_ONE_ENV_AND_FOR_MANY = {
    "ActionChunk": "action_chunk.py",
    "EpisodeVideoWrapper": "episode_video.py",
    "VLACRewardWrapper": "vlac_reward.py",
}


def test_each_public_class_has_a_name_of_its_own():
    places: dict[str, list[str]] = defaultdict(list)
    for path in (p for package in ("vlac_gym", "verl_env_adapter") for p in (ROOT / package).rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(str(path.relative_to(ROOT)))
    twins = {name: paths for name, paths in places.items() if len(paths) > 1}
    assert all(path.startswith("vlac_gym/cli/") for path in twins.pop("Args"))  # each command's
    for name, path in FOR_ONE_ENV_AND_FOR_MANY.items():
        assert set(twins.pop(name)) == {f"vlac_gym/wrappers/{path}", f"vlac_gym/wrappers/vector/{path}"}
    assert twins == {}
