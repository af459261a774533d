"""A PyTorch ShuffleNet, compiled for an ARM core."""
