"""The Transformer: attention, layers, encoder, decoder, and the recogniser that joins them."""
