"""One file per family: its reader turns a checked config into an Architecture."""
