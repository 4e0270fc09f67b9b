"""Facts about data sets, as TOML: addresses, sizes, checksums, splits, published numbers."""
