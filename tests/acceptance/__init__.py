"""The whole node as its users meet it."""
