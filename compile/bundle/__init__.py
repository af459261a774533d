"""The folder that travels from the compiler to a device; nothing here needs TVM or PyTorch."""
