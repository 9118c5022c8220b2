"""The steps that bring an older job log to the current tables."""
