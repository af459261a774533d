"""The bench runner: one static program with a network inside, built, sent, run, believed or not."""
