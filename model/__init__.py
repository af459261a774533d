"""Networks in PyTorch, their weights, and their arithmetic."""
