"""Autoencoders from and to other formats: LDM checkpoints, diffusers folders with model card."""
