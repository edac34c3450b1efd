"""Pictures: which way up they are (`convention`)."""
