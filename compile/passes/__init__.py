"""Graph passes, one a file; `compile/pipeline.py` lists them in order."""
