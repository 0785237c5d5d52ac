"""Pages about the service, and the program that writes one of them."""
