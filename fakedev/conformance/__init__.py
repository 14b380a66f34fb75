"""One probe, run in a machine and on a real kernel: the same questions, and how many answers are the same."""
