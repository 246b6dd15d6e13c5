"""Training: the loop, the book's recipes, and what is kept of them."""
