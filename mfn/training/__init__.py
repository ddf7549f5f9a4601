"""Horovod workers that train on request rows read through Petastorm."""
