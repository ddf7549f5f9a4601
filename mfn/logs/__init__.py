"""Read, check and clean the raw log."""
