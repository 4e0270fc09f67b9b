"""From RGB-D frames to the square images that a network takes, stored in an image store."""
