"""LIBERO as a Gymnasium env: `LiberoEnv`. Importing this loads no simulator."""

__all__ = ["LiberoEnv"]

from vlac_gym.envs.libero.env import LiberoEnv
