"""How the shipped critic `nano` is trained: recipe, batches, losses, trainer. Needs torch."""
