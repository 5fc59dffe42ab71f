"""How each dialect lays one matrix out in a file, written from its own documentation: shapes and dtypes, no values."""

from __future__ import annotations

import torch

Tensors = dict[str, torch.Tensor]


def cdiv(a: int, b: int) -> int:
    return -(-a // b)


def gptq(name: str, rows: int, columns: int, group: int = 16) -> Tensors:
    groups = cdiv(columns, group)
    return {
        f"{name}.qweight": torch.zeros(columns // 8, rows, dtype=torch.int32),
        f"{name}.qzeros": torch.zeros(groups, rows // 8, dtype=torch.int32),
        f"{name}.scales": torch.zeros(groups, rows, dtype=torch.float16),
        f"{name}.g_idx": torch.zeros(columns, dtype=torch.int32),
    }


def awq(name: str, rows: int, columns: int, group: int = 16) -> Tensors:
    groups = cdiv(columns, group)
    return {
        f"{name}.qweight": torch.zeros(columns, rows // 8, dtype=torch.int32),
        f"{name}.qzeros": torch.zeros(groups, rows // 8, dtype=torch.int32),
        f"{name}.scales": torch.zeros(groups, rows, dtype=torch.float16),
    }


def fp8_block(name: str, rows: int, columns: int) -> Tensors:
    return {
        f"{name}.weight": torch.zeros(rows, columns, dtype=torch.float8_e4m3fn),
        f"{name}.weight_scale_inv": torch.zeros(cdiv(rows, 32), cdiv(columns, 16), dtype=torch.float32),
    }


def pack_quantized(name: str, rows: int, columns: int) -> Tensors:
    return {
        f"{name}.weight_packed": torch.zeros(rows, cdiv(columns, 8), dtype=torch.int32),
        f"{name}.weight_scale": torch.zeros(rows, cdiv(columns, 16), dtype=torch.bfloat16),
        f"{name}.weight_shape": torch.zeros(2, dtype=torch.int64),
    }


def int_quantized(name: str, rows: int, columns: int) -> Tensors:
    return {
        f"{name}.weight": torch.zeros(rows, columns, dtype=torch.int8),
        f"{name}.weight_scale": torch.zeros(rows, 1, dtype=torch.bfloat16),
    }


def float_quantized(name: str, rows: int, columns: int) -> Tensors:
    return {
        f"{name}.weight": torch.zeros(rows, columns, dtype=torch.float8_e4m3fn),
        f"{name}.weight_scale": torch.zeros(rows, 1, dtype=torch.bfloat16),
    }


def nvfp4_pack_quantized(name: str, rows: int, columns: int) -> Tensors:
    return {
        f"{name}.weight_packed": torch.zeros(rows, columns // 2, dtype=torch.uint8),
        f"{name}.weight_scale": torch.zeros(rows, columns // 16, dtype=torch.float8_e4m3fn),
        f"{name}.weight_global_scale": torch.zeros(1, dtype=torch.float32),
        f"{name}.input_global_scale": torch.zeros(1, dtype=torch.float32),
    }


def mxfp4_pack_quantized(name: str, rows: int, columns: int) -> Tensors:
    return {
        f"{name}.weight_packed": torch.zeros(rows, columns // 2, dtype=torch.uint8),
        f"{name}.weight_scale": torch.zeros(rows, columns // 32, dtype=torch.uint8),
    }


def modelopt_nvfp4(name: str, rows: int, columns: int) -> Tensors:
    return {
        f"{name}.weight": torch.zeros(rows, columns // 2, dtype=torch.uint8),
        f"{name}.weight_scale": torch.zeros(rows, columns // 16, dtype=torch.float8_e4m3fn),
        f"{name}.weight_scale_2": torch.zeros((), dtype=torch.float32),
        f"{name}.input_scale": torch.zeros((), dtype=torch.float32),
    }


def modelopt_fp8(name: str, rows: int, columns: int) -> Tensors:
    return {
        f"{name}.weight": torch.zeros(rows, columns, dtype=torch.float8_e4m3fn),
        f"{name}.weight_scale": torch.zeros((), dtype=torch.float32),
        f"{name}.input_scale": torch.zeros((), dtype=torch.float32),
    }


def nf4(name: str, rows: int, columns: int) -> Tensors:
    """Without the JSON blob of the quantisation state, which no device ever reads."""
    blocks = cdiv(rows * columns, 64)
    return {
        f"{name}.weight": torch.zeros(rows * columns // 2, 1, dtype=torch.uint8),
        f"{name}.weight.absmax": torch.zeros(blocks, dtype=torch.uint8),
        f"{name}.weight.quant_map": torch.zeros(16, dtype=torch.float32),
        f"{name}.weight.nested_absmax": torch.zeros(cdiv(blocks, 256), dtype=torch.float32),
        f"{name}.weight.nested_quant_map": torch.zeros(256, dtype=torch.float32),
    }


def llm_int8(name: str, rows: int, columns: int) -> Tensors:
    return {
        f"{name}.weight": torch.zeros(rows, columns, dtype=torch.int8),
        f"{name}.SCB": torch.zeros(rows, dtype=torch.float32),
        f"{name}.weight_format": torch.zeros((), dtype=torch.uint8),
    }


def _compressed(packing: str, weights: dict[str, object], activations: dict[str, object] | None) -> dict[str, object]:
    group = {"targets": ["Linear"], "weights": weights, "input_activations": activations, "format": packing}
    ignored = ["lm_head", "re:.*mlp.gate$", "re:.*self_attn.q_proj"]
    return {"quant_method": "compressed-tensors", "config_groups": {"group_0": group}, "ignore": ignored}


FP4 = {"num_bits": 4, "type": "float", "group_size": 16}
DIALECTS = {
    "gptq": (gptq, {"quant_method": "gptq", "bits": 4, "group_size": 16, "desc_act": False, "sym": True}),
    "awq": (awq, {"quant_method": "awq", "bits": 4, "group_size": 16, "zero_point": True, "version": "gemm"}),
    "fp8": (
        fp8_block,
        {"quant_method": "fp8", "weight_block_size": [32, 16], "modules_to_not_convert": ["model.layers.1.self_attn"]},
    ),
    "pack-quantized": (
        pack_quantized,
        _compressed(
            "pack-quantized",
            {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 16, "symmetric": True},
            None,
        ),
    ),
    "int-quantized": (
        int_quantized,
        _compressed(
            "int-quantized", {"num_bits": 8, "type": "int", "strategy": "channel"}, {"num_bits": 8, "type": "int"}
        ),
    ),
    "float-quantized": (
        float_quantized,
        _compressed(
            "float-quantized", {"num_bits": 8, "type": "float", "strategy": "channel"}, {"num_bits": 8, "type": "float"}
        ),
    ),
    "nvfp4-pack-quantized": (
        nvfp4_pack_quantized,
        _compressed("nvfp4-pack-quantized", FP4 | {"strategy": "tensor_group"}, FP4),
    ),
    "mxfp4-pack-quantized": (
        mxfp4_pack_quantized,
        _compressed(
            "mxfp4-pack-quantized",
            {"num_bits": 4, "type": "float", "group_size": 32, "scale_dtype": "torch.uint8"},
            None,
        ),
    ),
    "modelopt-nvfp4": (
        modelopt_nvfp4,
        {"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["lm_head", "model.layers.0.self_attn*"]},
    ),
    "modelopt-fp8": (
        modelopt_fp8,
        {"quant_method": "modelopt", "quant_algo": "FP8", "exclude_modules": ["lm_head", "*mlp.experts*"]},
    ),
    "nf4": (
        nf4,
        {
            "quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": True, "bnb_4bit_compute_dtype": "bfloat16",
        },
    ),
    "llm-int8": (llm_int8, {"quant_method": "bitsandbytes", "load_in_8bit": True}),
}  # fmt: skip
COMPUTE = {
    "gptq": "bf16", "awq": "bf16", "fp8": "fp8", "pack-quantized": "bf16", "int-quantized": "int8", "nf4": "bf16",
    "float-quantized": "fp8", "nvfp4-pack-quantized": "fp4", "mxfp4-pack-quantized": "bf16", "modelopt-nvfp4": "fp4",
    "modelopt-fp8": "fp8", "llm-int8": "int8",
}  # fmt: skip
