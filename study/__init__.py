"""EQ-VAE reproducibility study: library and pipeline stages."""
