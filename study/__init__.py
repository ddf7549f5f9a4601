"""A study: which model is best on which data set, by how much, with which certainty, and why."""
