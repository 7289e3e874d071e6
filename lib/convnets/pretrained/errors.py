"""The one error of this package."""


class WeightsError(ValueError):
    """A weight file is missing, damaged, unsafe, or does not fit; the text names it and why."""
