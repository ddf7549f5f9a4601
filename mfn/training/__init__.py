"""The job that trains every model of a day."""
