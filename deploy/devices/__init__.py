"""Devices by name: sessions, trackers, many boards at once."""
