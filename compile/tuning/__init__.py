"""Auto-scheduling: tasks, search, records and where a score comes from."""
