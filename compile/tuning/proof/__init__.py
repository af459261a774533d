"""The proof that a score ranks schedules as the clock does."""
