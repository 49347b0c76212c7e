"""What people have becomes a frame: `Table` reads files, the sources give frames, `told` says how texts are written."""
