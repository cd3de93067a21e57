"""The errors a person can meet.

Each message says what was found, where (key, file, row), what is allowed, and what to type next.
"""


class DoctuneError(Exception):
    """A mistake that the person who typed the command can mend; shown as a sentence, without a traceback."""


class ConfigError(DoctuneError):
    """The configuration contradicts itself or asks for something that does not exist."""


class DataError(DoctuneError):
    """The input data cannot be used as it is."""


class ArtifactError(DoctuneError):
    """A run folder, a model folder or a pretrained model is missing, incomplete or foreign."""


class TrainingError(DoctuneError):
    """A run that was rightly asked for could not go on; its exit status is 1, not that of a caller's mistake."""
