"""The code of the book: lessons to copy, and the workshop that makes them run well."""
