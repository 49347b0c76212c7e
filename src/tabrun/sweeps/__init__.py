"""Many runs: `Grid` and `Search` say which, `Launcher` has them trained, `summarise` compares them.

Files here but summary.py and study.py are imported whenever Hydra starts, so they import nothing heavy at their top.
"""
