"""The demo: a wedding business's world, filled with believable and awkward data."""
