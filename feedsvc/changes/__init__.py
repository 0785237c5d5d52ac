"""Triggers that report changed rows, and the listener that receives them."""
