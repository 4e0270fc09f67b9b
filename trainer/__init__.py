"""Stage 2: feature shards in, trained classifiers and their results out."""
