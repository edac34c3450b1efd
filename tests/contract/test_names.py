"""One type per idea, and what constructors take of it: no name is given twice, no constructor is a long list."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]

FOR_ONE_ENV_AND_FOR_MANY = {
    "ActionChunk": "action_chunk.py",
    "EpisodeVideoWrapper": "episode_video.py",
    "VLACRewardWrapper": "vlac_reward.py",
}


MOST_ARGUMENTS = 8
"""More are the fields of a frozen config, which the constructor may take as keywords: ``**options: Unpack[…]``."""


def classes() -> Iterator[tuple[str, ast.ClassDef]]:
    """(file, class) of all classes at the top of a module."""
    for package in ("vlac_gym", "verl_env_adapter"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.ClassDef):
                    yield str(path.relative_to(ROOT)), node


def test_each_public_class_has_a_name_of_its_own():
    places: dict[str, list[str]] = defaultdict(list)
    for path, node in classes():
        if not node.name.startswith("_"):
            places[node.name].append(path)
    twins = {name: paths for name, paths in places.items() if len(paths) > 1}
    assert all(path.startswith("vlac_gym/cli/") for path in twins.pop("Args"))  # each command's
    for name, path in FOR_ONE_ENV_AND_FOR_MANY.items():
        assert set(twins.pop(name)) == {f"vlac_gym/wrappers/{path}", f"vlac_gym/wrappers/vector/{path}"}
    assert twins == {}


def test_no_constructor_takes_more_arguments_than_a_reader_keeps_in_mind():
    long = {
        f"{path}: {node.name}": count
        for path, node in classes()
        for made in node.body
        if isinstance(made, ast.FunctionDef) and made.name == "__init__"
        if (count := len([*made.args.posonlyargs, *made.args.args, *made.args.kwonlyargs]) - 1)
        > MOST_ARGUMENTS
    }
    assert long == {}
