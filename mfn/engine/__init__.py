"""The training engine of pretraining and training: feed, workers, training loop, checkpoints."""
