"""Names in specs and their one grammar, ``scheme:target?key=value``."""
