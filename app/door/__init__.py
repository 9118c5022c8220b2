"""The receiver process: bytes to spool, nothing is decoded."""
