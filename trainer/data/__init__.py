"""A shard's rows on the device: which are labelled, how they are batched, and whether they are kept or streamed."""
