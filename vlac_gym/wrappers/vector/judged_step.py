"""One vector step of training episodes: `JudgedStep`."""

__all__ = ["JudgedStep"]

from collections.abc import Mapping, Sequence
from typing import Any

from vlac_gym.episode_judge import Verdict
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
        self._last: dict[int, tuple[StepReport, Verdict]] = {}
        self._to_judge: dict[int, StepReport] = {}
        self._stale: set[int] = set()
        self._step = VectorStep(env.num_envs, width)

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
        for i, (report, verdict) in self._last.items():
            episode, reward = self._desk.episode(i), float(report.rewards[-1])
            self._step.infos[i] = episode.step_info(
                report.info, reward, report.terminated, verdict.stopped_by, self._desk.failures[i]
            )
            self._step.end(i, terminated=verdict.terminated, truncated=verdict.truncated)
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
            self._step.infos[i] = self._desk.begin(i, report.info, self._settings)
        elif isinstance(report, Lost):
            self._left[i] = []
            self._last.pop(i, None)
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
            episode.advance(terminated=False, truncated=False, success=success)
            self._step.pay(i, episode.verdict().reward)
        episode.advance(report.terminated, report.truncated, report.successes[-1])
        if episode.judge.wants_frame:
            self._desk.look(i, report.info)
        if episode.judge.is_checked:
            self._to_judge[i] = report
        else:
            self._settle(i, report, episode.verdict())

    def _judge(self) -> None:
        waiting, self._to_judge = self._to_judge, {}
        for i, verdict in self._desk.judge(list(waiting)).items():
            self._settle(i, waiting[i], verdict)

    def _settle(self, i: int, report: StepReport, verdict: Verdict) -> None:
        self._step.pay(i, verdict.reward)
        self._last[i] = report, verdict
        if verdict.stopped_by is not None:
            self._left[i] = []

    def _refresh(self) -> None:
        """Looks at the envs that the critic stopped where only its own frame was fresh."""
        stale = sorted(self._stale & set(self._last))
        if stale:
            # An env that is lost here had already ended: its verdict stands.
            self._env.execute({i: StepOrder(()) for i in stale})
