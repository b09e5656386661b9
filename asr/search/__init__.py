"""The room where scores become token sequences: greedy, beam and CTC search, with and without a language model."""
