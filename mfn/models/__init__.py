"""The ranking models: embedding, extractors, aggregation, head."""
