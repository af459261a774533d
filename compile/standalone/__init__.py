"""A network that needs no runtime: C functions, an object, a header."""
