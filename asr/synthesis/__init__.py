"""Speech made by machine: sentences, how they are pronounced, the voice that says them, and the corpus they become."""
