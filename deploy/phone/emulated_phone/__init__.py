"""The device's side of adb without a phone: what is pushed runs as aarch64 under QEMU."""
