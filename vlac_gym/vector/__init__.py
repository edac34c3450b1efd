"""Many envs at once: `make_vec` for LIBERO's tasks, `RolloutVectorEnv` for any env."""

__all__ = ["RolloutVectorEnv", "make_vec"]

from vlac_gym.vector.make import make_vec
from vlac_gym.vector.rollout_env import RolloutVectorEnv
