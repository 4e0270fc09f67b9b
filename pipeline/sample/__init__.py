"""A small rendered RGB-D data set in the Washington layout, for trying everything without a download."""
