"""Stages of dvc.yaml: one thin module each, of the same name."""
