"""Scores for the tuner: counted, estimated, measured."""
