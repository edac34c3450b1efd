"""Thin adapters through which verl-family trainers and RLinf consume a wrapped vlac-gym env."""
