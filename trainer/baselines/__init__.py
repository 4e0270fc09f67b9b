"""What our models are compared with: the paper's co-trained systems, and everyday classifiers."""
