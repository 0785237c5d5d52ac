"""Figures for Prometheus: counted from observations, all workers together."""
