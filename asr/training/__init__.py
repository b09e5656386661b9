"""From a recipe's configuration to a trained checkpoint."""
