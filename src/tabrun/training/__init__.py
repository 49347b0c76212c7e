"""One run is trained: `train` does it, from its config to its folder."""
