"""All that makes a multirun fast and safe; a reader who never sweeps never meets it."""
