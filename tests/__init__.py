"""The tests, the phantoms they run on, and the demo."""
