"""Ways to a Redis or Valkey, whichever shape it has: one server, sentinels, a cluster."""
