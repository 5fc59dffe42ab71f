"""Where an evaluation runs: one file per executor, `base` says what each must do."""
