"""SGLang's kernels, whose only published build needs CUDA."""

import torch
from moe_cap_stub import host_instead_of_cuda, stub

__version__ = "0.4.10"
__getattr__ = stub("sgl_kernel")
host_instead_of_cuda(torch)
