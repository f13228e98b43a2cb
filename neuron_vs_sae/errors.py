"""What this package raises when a caller's input is wrong: one tree, so that one `except` catches all of it."""


class InputError(ValueError):
    """The input is wrong; the message says what was given, what was expected and what to do."""


class NothingToExplainError(InputError):
    """Ablating everything leaves the metric where it was, so faithfulness has no denominator."""


class FolderError(InputError):
    """The output folder cannot be used: another study's, another run's, or not writable."""
