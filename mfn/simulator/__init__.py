"""A simulated shop that writes raw logs with known click probabilities."""
