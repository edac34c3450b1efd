"""Environments; importing this loads no simulator."""

__all__ = ["LiberoTask", "list_suites", "list_tasks"]

from vlac_gym.envs.libero.tasks import LiberoTask, list_suites, list_tasks
