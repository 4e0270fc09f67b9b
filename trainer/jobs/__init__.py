"""Many runs at once: planned, stacked, and trained here, in processes or on a cluster."""
