"""Running a bundle: execution, parity, latency, comparison, pictures."""
