"""Studies that lie in archives: asked for, routed by what the archive says of them, and fetched."""
