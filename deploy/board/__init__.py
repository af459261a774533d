"""An emulated Cortex-A board: built without root, counts instructions exactly."""
