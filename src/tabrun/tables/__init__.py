"""A frame becomes tensors: `TabularData.setup` splits, fits the schema and encodes; `look` says what it noticed."""
