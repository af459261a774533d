"""From an exported program to a tuned library for an ARM core."""
