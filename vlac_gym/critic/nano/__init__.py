"""The small critic that ships with the package: its recipe, training data and trainer."""
