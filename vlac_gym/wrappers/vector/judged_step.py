"""One vector step of training episodes: `JudgedStep`."""

__all__ = ["JudgedStep"]

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlac_gym.rule.round import OpenStep
from vlac_gym.types import Frame
from vlac_gym.vector.orders import Lost, Order, Report, ResetOrder, ResetReport, StepOrder, StepReport
from vlac_gym.vector.rollout_env import RolloutVectorEnv
from vlac_gym.vector.step_result import VectorStep
from vlac_gym.wrappers.training_episode import EpisodeSettings
from vlac_gym.wrappers.vector.critic_desk import CriticDesk


class JudgedStep:
    """Runs up to T actions in each running env, and asks the critic wherever the rule wants it.

    Envs go ahead on their own until their next check, and are then asked about together: the critic gets as
    many rounds as the env with the most checks has, one for a chunk of one action.

    Args:
        env: The vector env.
        desk: The episodes and the critic.
        settings: Of the episodes.
        actions: T actions by index of a running env.
        resets: Orders of the envs that begin an episode in this step instead.
        width: T.

    Attributes:
        latency_ms: float64 (N,), of the critic's calls for each env's last step; NaN where it was not asked.
    """

    def __init__(
        self,
        env: RolloutVectorEnv,
        desk: CriticDesk,
        settings: EpisodeSettings,
        actions: Mapping[int, Sequence[Any]],
        resets: Mapping[int, ResetOrder],
        width: int,
    ) -> None:
        self._env = env
        self._desk = desk
        self._settings = settings
        self._left = {i: list(rows) for i, rows in actions.items()}
        self._resets = resets
        self._orders: dict[int, StepOrder] = {}
        self._last: dict[int, StepReport] = {}
        self._to_judge: dict[int, OpenStep] = {}
        self._stale: set[int] = set()
        self._step = VectorStep(env.num_envs, width)
        self.latency_ms: NDArray[np.float64] = np.full(env.num_envs, np.nan)

    def submit(self) -> None:
        """Sends the envs off."""
        orders: dict[int, Order] = dict(self._resets)
        self._env.submit(orders | self._next_orders())

    def finish(self) -> VectorStep:
        """Waits for the envs and judges them.

        Raises:
            CriticError: As the desk raises it.
        """
        reports = self._env.collect()
        while True:
            for i, report in reports.items():
                self._take(i, report)
            orders = self._next_orders()
            if not orders and self._to_judge:
                self._judge()
                orders = self._next_orders()
            if not orders:
                break
            reports = self._env.execute(orders)
        self._refresh()
        for i, report in self._last.items():
            self._step.infos[i] = self._desk.episode(i).step_info(
                report.info, float(report.rewards[-1]), report.terminated, self._desk.failures[i]
            )
        return self._step

    def _next_orders(self) -> dict[int, StepOrder]:
        """Orders for the envs that have actions left and don't wait for the critic."""
        orders = {}
        for i, rows in self._left.items():
            if rows and i not in self._to_judge:
                count = min(len(rows), self._desk.episode(i).steps_to_frame)
                orders[i] = StepOrder(
                    rows[:count],
                    # The caller looks at the whole observation, but only at the end.
                    None if count == len(rows) else self._desk.key,
                    stops_at_terminated=self._settings.on_sim_terminated == "truncate",
                    stops_at_truncated=self._settings.max_episode_steps is None,
                )
        self._orders = orders
        return orders

    def _take(self, i: int, report: Report) -> None:
        if isinstance(report, ResetReport):
            self._step.infos[i] = self._desk.begin(i, report, self._settings)
        elif isinstance(report, Lost):
            self._left[i] = []
            self._last.pop(i, None)
            self.latency_ms[i] = np.nan
            self._step.lose(i, report.reason)
        elif isinstance(report, StepReport):
            self._take_steps(i, report)

    def _take_steps(self, i: int, report: StepReport) -> None:
        order, episode = self._orders[i], self._desk.episode(i)
        count = len(report.rewards)
        self._left[i] = self._left[i][count:]
        is_whole = order.key is None or count < len(order.actions)
        (self._stale.discard if is_whole else self._stale.add)(i)
        for success in report.successes[:-1]:
            self._settle(i, episode.step(False, False, success, look=_not_looked_at))
        step = episode.step(
            report.terminated,
            report.truncated,
            report.successes[-1],
            look=lambda: self._desk.look(i, report.info),
        )
        self._last[i] = report
        if step.question is None:
            self._settle(i, step)
        else:
            self._to_judge[i] = step

    def _judge(self) -> None:
        waiting, self._to_judge = self._to_judge, {}
        self._desk.ask(waiting)
        for i, step in waiting.items():
            self._settle(i, step)

    def _settle(self, i: int, step: OpenStep) -> None:
        verdict = step.verdict
        self._step.pay(i, verdict.reward)
        self._step.end(i, terminated=verdict.terminated, truncated=verdict.truncated)
        self.latency_ms[i] = np.nan if step.latency_ms is None else step.latency_ms
        if verdict.stopped_by is not None:
            self._left[i] = []

    def _refresh(self) -> None:
        """Looks at the envs that the critic stopped where only its own frame was fresh."""
        stale = sorted(self._stale & set(self._last))
        if stale:
            # An env that is lost here had already ended: its verdict stands.
            self._env.execute({i: StepOrder(()) for i in stale})


def _not_looked_at() -> Frame:
    raise AssertionError("an env went past a step whose frame is needed")
