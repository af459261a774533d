"""Reading and rebuilding Relax functions and TIR: what every pass and kernel stands on."""
