"""A bundle over HTTP: `edgekd serve BUNDLE`, and `python -m edgekd.serving BUNDLE` where only the runtime is."""
