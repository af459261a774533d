"""Phones over adb: the client that everybody has, what runs on the phone, a phone for tests."""
