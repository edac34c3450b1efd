"""Names of what is counted of a critic that fails: `CRITIC_COUNTERS`."""

__all__ = [
    "CRITIC_COUNTERS",
    "CRITIC_FAILBACKS",
    "CRITIC_FAILED_EPISODES",
    "CRITIC_FAILOVERS",
    "CRITIC_RETRIES",
]

CRITIC_FAILED_EPISODES = "critic/failed_episodes"
CRITIC_RETRIES = "critic/retries"
CRITIC_FAILOVERS = "critic/failovers"
CRITIC_FAILBACKS = "critic/failbacks"

CRITIC_COUNTERS: dict[str, str] = {
    CRITIC_FAILED_EPISODES: "episodes that ended without a usable answer and are to be masked; count",
    CRITIC_RETRIES: "attempts after a question's first; count",
    CRITIC_FAILOVERS: "times that another server or critic took over; count",
    CRITIC_FAILBACKS: "times that the first critic came back; count",
}
"""Counter of the reward wrappers' `critic_counters` -> its meaning; all since the wrapper was made."""
