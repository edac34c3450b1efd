"""SimpleVLA-RL; `plugin` is its ``external_lib``."""
