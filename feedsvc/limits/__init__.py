"""How much each caller may ask for: exact near a limit, free of waiting far from it."""
