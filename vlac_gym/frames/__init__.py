"""Pictures: their checks (`checks`), which way up they are (`convention`), compressed (`codec`), as files (`files`)."""
