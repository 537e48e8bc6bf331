"""Sources of labelled images, and the pixel store they become."""
