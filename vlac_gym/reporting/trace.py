"""The facts of one finished episode: `EpisodeTrace`, made of `StepTrace`s and one `CriticTrace`. numpy only."""

__all__ = ["PRIVILEGED_NOTE", "CriticTrace", "EpisodeTrace", "StepTrace"]

from dataclasses import asdict, dataclass
from typing import Any

from vlac_gym.types import Frame, Mode

PRIVILEGED_NOTE = "privileged: it reads the simulator's state, not only pictures"
"""What every summary, page and video says beside the name of a privileged critic."""

_CRITIC_STOPS = ("success_prob", "value")


@dataclass(frozen=True)
class StepTrace:
    """One env step.

    Attributes:
        step: 1 for the first step after reset.
        action: What the policy sent; empty if the action is not a vector.
        reward: What `step` returned.
        terminated: What `step` returned.
        truncated: What `step` returned.
        success_prob: The critic's opinion in [0, 1], None at steps it was not asked.
        latency_ms: How long the critic took at this step, None if it was not asked.
        sim_success: The simulator's verdict (`success` in eval mode, `sim_success` in train mode).
        goal_progress: The simulator's own distance measure in [0, 1], None if the env has none.
    """

    step: int
    action: tuple[float, ...] = ()
    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False
    success_prob: float | None = None
    latency_ms: float | None = None
    sim_success: bool = False
    goal_progress: float | None = None


@dataclass(frozen=True)
class CriticTrace:
    """What the critic did during one episode.

    Attributes:
        name: Name from `Critic.describe()`; `"none"` when no critic was there.
        is_privileged: True if the critic reads the simulator.
        calls: Requests made by the reward wrapper.
        failures: Requests that gave no usable answer.
        latency_ms_mean: Mean over the checks, None without checks.
        values: Accumulated completion in [0, 1], one per judged frame.
        value_frame_steps: Env step of each judged frame; 0 is the reset frame.
        values_for: `"reward"` if the wrapper asked for them, `"plot"` if they were asked for after the episode
            and touched no reward, `"none"` if there are none.
        stopped_by: Which rule ended the episode: `success_prob` or `value` mean that the critic did.
        threshold: `success_prob` that counts as done, None if unknown.
    """

    name: str = "none"
    is_privileged: bool = False
    calls: int = 0
    failures: int = 0
    latency_ms_mean: float | None = None
    values: tuple[float, ...] = ()
    value_frame_steps: tuple[int, ...] = ()
    values_for: str = "none"
    stopped_by: str | None = None
    threshold: float | None = None

    @property
    def label(self) -> str:
        """Name for titles; says so if the critic is privileged."""
        return f"{self.name} ({PRIVILEGED_NOTE})" if self.is_privileged else self.name


@dataclass(frozen=True)
class EpisodeTrace:
    """One finished episode.

    Attributes:
        task: Instruction text.
        mode: Reward mode of the episode.
        steps: One entry per env step, in order; at least one.
        critic: What the critic did.
        frames: The reset frame and one per step, or empty if frames were not kept.
        wrist_frames: The wrist camera's, likewise; empty if the env's observation has none beside `frames`.
        task_suite: Suite name, None outside LIBERO.
        task_id: Number in the suite, None outside LIBERO.
        init_state_id: Official init state, None outside LIBERO.
        wall_s: Seconds from the end of reset to the last step.
    """

    task: str
    mode: Mode
    steps: tuple[StepTrace, ...]
    critic: CriticTrace
    frames: tuple[Frame, ...] = ()
    wrist_frames: tuple[Frame, ...] = ()
    task_suite: str | None = None
    task_id: int | None = None
    init_state_id: int | None = None
    wall_s: float = 0.0

    @property
    def num_steps(self) -> int:
        """Env steps in the episode."""
        return len(self.steps)

    @property
    def episode_return(self) -> float:
        """Sum of rewards, undiscounted."""
        return float(sum(step.reward for step in self.steps))

    @property
    def sim_success(self) -> bool:
        """Whether the simulator saw success at any step."""
        return self.sim_success_step is not None

    @property
    def sim_success_step(self) -> int | None:
        """First step at which the simulator saw success."""
        return next((s.step for s in self.steps if s.sim_success), None)

    @property
    def critic_done_step(self) -> int | None:
        """Step at which the critic ended the episode."""
        said_done = self.mode != "eval" and self.critic.stopped_by in _CRITIC_STOPS
        return self.steps[-1].step if said_done else None

    @property
    def success_probs(self) -> tuple[list[int], list[float]]:
        """Steps at which the critic was asked, and its answers."""
        asked = [(s.step, s.success_prob) for s in self.steps if s.success_prob is not None]
        return [step for step, _ in asked], [prob for _, prob in asked]

    def step_rows(self) -> list[dict[str, Any]]:
        """JSON-serialisable rows, one per step."""
        return [{**asdict(step), "action": list(step.action)} for step in self.steps]

    def summary(self) -> dict[str, Any]:
        """JSON-serialisable facts of the episode; `success` is the simulator's verdict in every mode."""
        last = self.steps[-1]
        return {
            "task_suite": self.task_suite,
            "task_id": self.task_id,
            "task": self.task,
            "init_state_id": self.init_state_id,
            "mode": self.mode,
            "steps": self.num_steps,
            "terminated": last.terminated,
            "truncated": last.truncated,
            "return": self.episode_return,
            "success": self.sim_success,
            "sim_success_step": self.sim_success_step,
            "critic_done_step": self.critic_done_step,
            "critic": {
                "name": self.critic.name,
                "is_privileged": self.critic.is_privileged,
                "calls": self.critic.calls,
                "failures": self.critic.failures,
                "latency_ms_mean": self.critic.latency_ms_mean,
                "values": list(self.critic.values),
                "value_frame_steps": list(self.critic.value_frame_steps),
                "values_for": self.critic.values_for,
                "stopped_by": self.critic.stopped_by,
                "success_prob_last": self.success_probs[1][-1] if self.success_probs[1] else None,
            },
            "wall_s": round(self.wall_s, 3),
        }
