"""A critic of one's own, `own_critics:closing`: it says done to everything and counts how often it is closed."""

from vlac_gym.critic.scripted import ScriptedCritic

closed = 0


class _Closing(ScriptedCritic):
    def close(self) -> None:
        global closed
        closed += 1


def closing() -> ScriptedCritic:
    return _Closing(success_probs=[1.0], repeat=True)
