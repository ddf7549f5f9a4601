"""Which model wins on which data, by how much, how surely, and why."""
