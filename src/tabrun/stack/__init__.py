"""Many runs as one: `planned` says and proves which, `train_stack` trains them."""
