"""The benchmark behind `deploy/bench.py`: our networks beside other engines, in turns."""
