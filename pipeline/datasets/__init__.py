"""The known data sets: where their files are, and how they are read and split."""
