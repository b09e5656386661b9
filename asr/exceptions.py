"""The failures that a user can meet.

Each message is one sentence that names the file or key, says what is wrong with it and what to do. The command line
prints the message without a traceback; anything that is not an ``AsrError`` is a defect of this project.
"""


class AsrError(Exception):
    """Base of every failure that a user can meet."""


class AudioError(AsrError):
    """An audio file or sample array cannot be used."""


class ConfigurationError(AsrError):
    """A configuration file, key or option is not valid."""


class CorpusError(AsrError):
    """A corpus, its transcripts or a manifest are not as they should be."""


class CheckpointError(AsrError):
    """A model folder or weight file cannot be loaded or written."""


class TrainingError(AsrError):
    """Training cannot go on."""


class ScoringError(AsrError):
    """References and hypotheses cannot be compared."""
