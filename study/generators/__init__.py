"""Generators: one backbone, an objective and samplers each, one training loop."""
