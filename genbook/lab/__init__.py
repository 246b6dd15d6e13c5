"""For students and teachers: checks of answers, and the assignments."""
