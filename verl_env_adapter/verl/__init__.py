"""verl 0.9.1's agent loop; `plugin` is what verl imports."""
