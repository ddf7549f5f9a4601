"""The training engine, which pretraining and training share: feed, workers, steps, checkpoints."""
