"""Numbers of a training run: names and sums of episodes, where they are written, how far values follow time."""
