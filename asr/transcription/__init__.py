"""Audio files in, text and output formats out."""
