"""Advice on statements: their plans, findings with the nodes they come from, and proposals."""
