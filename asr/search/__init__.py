"""Scores to token sequences: greedy and CTC search."""
