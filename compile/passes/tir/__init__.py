"""Passes over the code of one kernel: what schedules cannot say, and TVM leaves undone."""
