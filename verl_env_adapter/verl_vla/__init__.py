"""verl-vla; `plugin` is what its configuration names."""
