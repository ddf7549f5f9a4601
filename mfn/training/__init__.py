"""The job `train`, which trains every model of a day."""
