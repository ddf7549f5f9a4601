"""Other systems' trainers of DIN, each in an environment of its own: peers for speed."""
