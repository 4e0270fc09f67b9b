"""A shard's rows on the device: which of them are labelled, in what order batches come, in memory or streamed."""
