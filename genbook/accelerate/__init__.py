"""What makes Paddle fast on a processor."""
