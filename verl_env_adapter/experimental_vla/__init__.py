"""verl's experimental/vla of January 2026; `plugin` is what ``VERL_USE_EXTERNAL_MODULES`` names."""
