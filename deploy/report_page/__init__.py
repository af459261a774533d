"""One page about networks, to send around: what stands on it, its pictures, its HTML."""
