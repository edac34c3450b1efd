"""What moves one env: checked actions, its wrappers, steps without pictures, the simulator's signals. numpy only."""
