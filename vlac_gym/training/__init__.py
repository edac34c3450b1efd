"""What a training loop keeps of its policy."""
