"""Connections that outlive their requests: subscribers of broadcasts, without a task each."""
