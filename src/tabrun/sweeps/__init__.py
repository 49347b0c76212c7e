"""Many runs: `Grid` and `Search` say which, `Launcher` has them trained, `summarise` compares them."""
