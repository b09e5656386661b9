"""The room of the Transformer: features in, scores of tokens out.

``attention`` and ``layers`` are the parts; ``encoder`` reads all features at once, ``decoder`` writes one token after
another; ``recognizer`` joins them with the front end and the CTC head under one ``configuration``; ``checkpoint`` is all
of it on disk, and ``whisper`` brings published weights into it.
"""
