"""Number formats by the names that torch has for them, as servers spell them."""

DTYPES = {"bf16": "bfloat16", "fp32": "float32", "fp16": "float16"}
PRECISIONS = {name: precision for precision, name in DTYPES.items()}
