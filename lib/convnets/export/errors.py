"""The one error of this package."""


class ExportError(ValueError):
    """A model cannot be written so that it computes the same elsewhere; the text says why."""
