"""How good samples are: metrics, and the classifier that judges."""
