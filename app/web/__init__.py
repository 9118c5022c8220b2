"""Where the node says how it is: health for supervisors and people, metrics for monitors."""
