"""The real image: built, exported, loaded and run. Only `make test-map` does it."""
