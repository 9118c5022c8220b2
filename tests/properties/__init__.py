"""Tests that hold for whatever hypothesis thinks of."""
