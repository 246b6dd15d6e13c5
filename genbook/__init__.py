"""The code of the book: lessons to copy, and the workshop that makes them run well."""

__version__ = "0.1.0"
