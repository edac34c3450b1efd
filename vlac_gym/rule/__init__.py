"""The training rule at work: one episode (`episode`), questions for many at once (`round`), what is told (`report`)."""
