"""The search: tasks, proposals, building, scoring, keeping."""
