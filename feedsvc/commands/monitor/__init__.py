"""`feedsvc monitor`: a service seen from a terminal, over its own endpoints."""
