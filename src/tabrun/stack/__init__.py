"""Many runs as one: `Launcher.launch` plans them, `train_population` trains them, `summarise` compares them."""
