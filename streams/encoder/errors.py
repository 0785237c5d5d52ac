"""The encoder's error, with or without its native part."""


class EncoderError(ValueError):
    """A row that is not of the plan's form: cut off, malformed, or of other columns."""
