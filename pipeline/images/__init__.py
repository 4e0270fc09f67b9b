"""From RGB-D frames to the square images that a network takes, kept in an image store."""
