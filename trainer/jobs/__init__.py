"""Many runs at once: planned, stacked, and trained in this process, in several, or on a cluster."""
