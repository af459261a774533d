"""What runs on a device without Python: a server in C, and what builds it."""
