"""One file per quantisation dialect: a `quantization_config` in, a StoragePlan out."""
