"""The report card: how far a critic can be trusted, with the simulator as referee."""
