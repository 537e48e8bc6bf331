"""How fast the study's own functions are, beside published code: `python -m benchmarks.gpu`."""
