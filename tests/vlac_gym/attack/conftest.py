"""Synthetic recordings whose every number is known."""

from recorded_bank import bank, record_fixture  # noqa: F401
