"""What building the book needs of the package: fingerprints, chapters as notebooks."""
