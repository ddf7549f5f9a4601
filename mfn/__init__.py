"""Daily-retrained, multi-interest ranking models: a Spark pipeline around MFN."""

__version__ = "0.1.0"
