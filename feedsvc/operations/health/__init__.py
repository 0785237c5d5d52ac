"""How everything is that the service needs: looked at in the background, and mended by name."""
