"""In-domain networks and perceptual distances; what trains uses these alone of `evaluation`."""
