"""What wakes somebody: rules over the figures of the last minute or two, and who is told."""
