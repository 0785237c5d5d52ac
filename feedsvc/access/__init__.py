"""Tokens, the keys that verify them, tickets and limits."""
