"""Measurements: networks, features, distances, reconstruction."""
