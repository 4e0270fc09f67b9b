"""The co-trained systems that the paper compares with (tables 5 and 6): plain classifiers, trained without a bound."""
