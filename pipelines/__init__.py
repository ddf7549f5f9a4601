"""The day as one graph of steps, and what runs it."""
