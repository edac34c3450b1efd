"""RLinf 0.3; `plugin` is what ``RLINF_EXT_MODULE`` names."""
