"""Raw logs: made, taken in, and checked."""
