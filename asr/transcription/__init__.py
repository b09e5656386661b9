"""The room where it comes together: audio files in, text and output formats out."""
