"""The version of sktransfer."""

__version__ = "0.1.0"
