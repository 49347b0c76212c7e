"""A file becomes tensors: `TabularData.setup` reads, splits and encodes one; `Table` reads one of any length."""
