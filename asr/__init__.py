"""Speech recognition with a Transformer: transcribe audio files, train on recipes, score word error rates."""

__version__ = "0.1.0"
