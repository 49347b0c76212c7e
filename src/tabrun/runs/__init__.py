"""A run is a folder: `folder` locks and writes it, `Run.open` reads it back, `load` gives its classifier."""
