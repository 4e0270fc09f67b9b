"""Which data sets there are, where their files lie, and how they are read and split."""
