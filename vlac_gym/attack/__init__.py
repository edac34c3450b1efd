"""Searching for what a critic pays and the simulator does not: a report card's section "under optimisation"."""
