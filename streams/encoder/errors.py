"""What the encoder raises, with or without its native part."""


class EncoderError(ValueError):
    """What was fed is no row of the plan's: cut off, malformed, or of other columns."""
