"""Networks in the paper's notation, distributions, labels and random streams, all with a replica axis."""
