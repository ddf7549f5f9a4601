"""Learning before the training window: the frozen embedding and the interest centers."""
