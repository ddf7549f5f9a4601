"""Comparisons over several seeds: many trainings in processes of this machine, and their scores."""
