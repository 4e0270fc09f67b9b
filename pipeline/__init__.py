"""Stage 1: raw data sets in, feature shards out. Never imports `trainer`."""
