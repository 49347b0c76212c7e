"""What is done with a finished run, a file a verb: one pure function, and a `main` for the command line."""
