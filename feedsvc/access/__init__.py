"""Who asks: principals, the tokens that prove them, and the keys that prove the tokens."""
