"""The raw log: read, checked, and cleaned."""
