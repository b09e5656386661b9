"""The room of characters: tokenizers, and the normalisation that makes texts comparable."""
