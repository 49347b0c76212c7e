"""A file becomes tensors: `TabularData.setup` reads, splits and encodes one; `read_batches` reads one of any length."""
