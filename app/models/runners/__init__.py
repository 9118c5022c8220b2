"""Runners: each makes a label map of volumes, in the way its framework does."""
