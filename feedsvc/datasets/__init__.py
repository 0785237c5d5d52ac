"""Datasets: what may be read, and whether reading it is safe."""
