"""Autoencoders: adapters over library models, losses, one training loop."""
