"""How each model of the book is trained: a function a model, used by every chapter that needs it."""
