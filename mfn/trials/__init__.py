"""Trainings in processes of this machine, scored at once: what comparisons of many are made of."""
