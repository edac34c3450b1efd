"""vlac-gym: train VLA policies with a learned critic instead of the simulator's success flag.

Importing it registers `vlac_gym/Libero-v0` with Gymnasium; it loads no simulator and no model.
"""

__all__ = ["LIBERO_ENV_ID", "__version__"]

from gymnasium.envs.registration import register

__version__ = "0.1.0"

LIBERO_ENV_ID = "vlac_gym/Libero-v0"

register(id=LIBERO_ENV_ID, entry_point="vlac_gym.envs.libero:LiberoEnv", order_enforce=True)
