"""A shard's rows on the device, all of them or a window at a time; which labels are seen, and in what order batches come."""
