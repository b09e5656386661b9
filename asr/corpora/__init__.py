"""The room of data sets: to manifests, and from manifests to batches.

``librispeech`` and ``aishell`` read the published folder layouts, ``table`` a csv or jsonl of one's own; ``manifests``
is what they all become, and ``batches`` reads those for training and evaluation.
"""
