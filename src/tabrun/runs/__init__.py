"""A run is a folder: `train` writes one, `Run.open` reads it back, `load` gives its classifier."""
