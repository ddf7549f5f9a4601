"""DIN of other libraries, each in its own environment, to compare speed and quality."""
