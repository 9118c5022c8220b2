"""The node with its processes killed, stopped and hung."""
