"""Where everything is remembered: the job log in one SQLite file."""
