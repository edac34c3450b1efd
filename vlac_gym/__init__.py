"""vlac-gym: train VLA policies with a learned critic instead of the simulator's success flag.

Importing it registers `vlac_gym/Libero-v0` with Gymnasium; it loads no simulator and no model.
"""

__all__ = ["LIBERO_ENV_ID", "__version__", "make_vec"]

from typing import TYPE_CHECKING, Any

from gymnasium.envs.registration import register

if TYPE_CHECKING:
    from vlac_gym.vector import make_vec

__version__ = "0.1.0"

LIBERO_ENV_ID = "vlac_gym/Libero-v0"

register(
    id=LIBERO_ENV_ID,
    entry_point="vlac_gym.envs.libero:LiberoEnv",
    vector_entry_point="vlac_gym.vector.make:make_vec",
    order_enforce=True,
)


def __getattr__(name: str) -> Any:
    if name != "make_vec":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from vlac_gym.vector.make import make_vec

    return make_vec
