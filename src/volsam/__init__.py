"""Segment Anything for microscopy at volume scale."""

__version__ = "0.1.0"
