"""Tuning records: logs, what a trace may hold, schedules of records, what a log covers."""
