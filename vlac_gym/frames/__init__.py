"""Pictures: what is asked of them (`checks`), which way up they are (`convention`), their compressed form (`codec`)."""
