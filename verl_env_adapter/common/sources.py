"""Where the trainers come from that no extra of this package brings: sentences for `vlac_gym.extras.needs`."""

__all__ = ["EXPERIMENTAL_VLA", "RLINF", "SIMPLEVLA", "VERL_VLA"]

EXPERIMENTAL_VLA = (
    "It was never in a wheel of verl. Run: git clone https://github.com/volcengine/verl && git -C verl checkout "
    "b178a3c; put that on PYTHONPATH, and run: pip install torch"
)
RLINF = "Run: pip install rlinf==0.3.0"
SIMPLEVLA = (
    "It wants SimpleVLA-RL (proven with commit 7c51662), whose own `verl` has verl.workers.rollout.rob_rollout. Get it "
    "from https://github.com/PRIME-RL/SimpleVLA-RL, put it first on PYTHONPATH and install its requirements."
)
VERL_VLA = (
    "verl-vla is not on PyPI. Run: git clone https://github.com/verl-project/verl-vla && git -C verl-vla checkout "
    "8a18e3f && pip install ./verl-vla verl==0.7.1"
)
