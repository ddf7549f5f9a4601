"""Public data sets as raw logs: one module for each source."""
