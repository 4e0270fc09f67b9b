"""A small rendered RGB-D data set in the Washington layout, to try everything without a download."""
