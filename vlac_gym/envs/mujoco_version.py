"""Which versions of MuJoCo keep LIBERO as its authors recorded it: `mujoco_problem`, `check_mujoco`.

Nothing here imports MuJoCo.
"""

__all__ = ["MUJOCO_REQUIREMENT", "check_mujoco", "mujoco_problem"]

import importlib.metadata
import re

from vlac_gym.errors import DependencyNotInstalled

MUJOCO_REQUIREMENT = "mujoco>=3.3,<3.3.3"
"""The range that `vlac-gym[libero]` asks for; docs/libero.md has the measurements behind it."""

_CHANGES = (
    ((3, 4, 0), "objects that touch at the start slide or fly off while the scene settles"),
    ((3, 3, 3), "textures are drawn in other colours (libero_object's floor is a third darker)"),
)
"""What changed for LIBERO, from which version on, the latest first. MuJoCo's changelog: 3.4.0, "Fixed a bug in the
box-box distance computation", on which scenes recorded with the bug rest; 3.3.3, the colour space of PNG textures."""


def mujoco_problem(version: str) -> str | None:
    """What is wrong with LIBERO under this version of MuJoCo, or None.

    Args:
        version: For example ``"3.3.2"``.
    """
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:3])
    for first, change in _CHANGES:
        if numbers >= first:
            since = ".".join(map(str, first))
            return f"since MuJoCo {since} {change}, unlike in LIBERO's recordings"
    return None


def check_mujoco() -> None:
    """Refuses an installed MuJoCo under which LIBERO's scenes are not those that its authors recorded.

    Says nothing where MuJoCo is not installed: listing tasks needs none, and a simulator that starts says so itself.

    Raises:
        DependencyNotInstalled: The version is wrong; the message has the pip command.
    """
    try:
        version = importlib.metadata.version("mujoco")
    except importlib.metadata.PackageNotFoundError:
        return
    problem = mujoco_problem(version)
    if problem is not None:
        raise DependencyNotInstalled(
            f'LIBERO needs "{MUJOCO_REQUIREMENT}", found {version}: {problem}. {_how_to_get_it()}'
        )


def _how_to_get_it() -> str:
    try:
        importlib.metadata.version("mujoco-warp")
    except importlib.metadata.PackageNotFoundError:
        return f'Run: pip install "{MUJOCO_REQUIREMENT}"'
    return (
        "mujoco-warp, which is installed here, needs this one: use make_vec(backend='warp'), or, in another "
        'environment, run: pip install "vlac-gym[libero]"'
    )
