"""What the chapters show: plots, and figures that a reader can move."""
