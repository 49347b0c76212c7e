"""Words of the command line: `application` makes the command that trains, `one_line_errors` answers mistakes."""
