"""What the trainers' tests share: a checkout to run against, and a critic server of a test's own."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from critic_process import CriticProcess

CHECKOUTS = {
    "experimental_vla": ("VERL_EXPERIMENTAL_VLA_PATH", "verl"),
    "simplevla": ("SIMPLEVLA_PATH", "SimpleVLA-RL"),
    "verl_vla": ("VERL_VLA_PATH", "verl-vla"),
}
"""Folder of tests -> the variable that names the trainer's checkout, and whose it is."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for folder, (variable, trainer) in CHECKOUTS.items():
        if variable in os.environ:
            continue
        skip = pytest.mark.skip(reason=f"{variable} names no {trainer} checkout")
        for item in items:
            if Path(__file__).parent / folder in item.path.parents:
                item.add_marker(skip)


@pytest.fixture
def critic(tmp_path) -> Iterator[CriticProcess]:
    """A critic server of its own, so that it has given no answer yet."""
    process = CriticProcess(tmp_path / "answers.jsonl")
    yield process
    process.close()
