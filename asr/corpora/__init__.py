"""Data sets to manifests to batches."""
