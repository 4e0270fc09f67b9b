"""The contract between the two stages: one HDF5 file per split."""
