"""How each model of the book is trained: a function for each."""
