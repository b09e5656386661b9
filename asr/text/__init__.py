"""Characters: tokenizers and text normalisation."""
