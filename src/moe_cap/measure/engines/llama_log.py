"""What llama-server says about itself in its log, where `--verbosity 4` has it say where the model lies.

Sources: the format strings of llama.cpp b11434 (`llama_prepare_model_devices` in src/llama.cpp, `load_tensors` in
src/llama-model.cpp, `common_params_print_info` in common/common.cpp, src/llama-kv-cache.cpp, src/llama-context.cpp,
common/speculative.cpp).
"""

from __future__ import annotations

import re
from collections import defaultdict

from pydantic import JsonValue

USED = re.compile(r"using device (?P<name>\S+) \((?P<title>.*)\) \((?P<id>[^()]*)\) - (?P<free>\d+) MiB free")
PROCESSOR = re.compile(r"  - CPU +: (?P<title>.*) \(\d+ MiB, \d+ MiB free\)")
FEATURES = re.compile(r"system_info: (?P<features>.*)")
LAYERS = re.compile(r"offloaded (?P<there>\d+)/(?P<all>\d+) layers to GPU")
BUFFER = re.compile(r"load_tensors: +(?P<place>\S+) model buffer size = +(?P<mib>[\d.]+) MiB")
CACHE = re.compile(r"llama_kv_cache: size = .*, K \((?P<keys>\w+)\): .*, V \((?P<values>\w+)\):")
SIZE = re.compile(r"llama_context: (?P<name>n_seq_max|n_ctx|n_ubatch) += (?P<number>\d+)")
DRAFTER = re.compile(r"adding speculative implementation '(?P<kind>[^']+)'")
CUDA = re.compile(r"^(?:CUDA|ROCm)(?P<index>\d+)$")
NUMBERED = re.compile(r"^(?P<kind>[A-Za-z]+)(?P<index>\d+)$")


def parse_log(text: str) -> dict[str, JsonValue]:
    """Effective placement by the server's own words; only what it said is there.

    `device` is the first one in use as torch would name it, `cpu` where no device is used or none holds a layer;
    `devices` are all that are, `model_buffers_mib` says how much of the weights lies where.
    `n_seq_max`, `n_ctx` and `n_ubatch` are the slots, the tokens of all of them together, and those of one pass: of the
    model itself, which is loaded before one that drafts for it.
    """
    found: dict[str, JsonValue] = {}
    used = list(USED.finditer(text))
    if processor := PROCESSOR.search(text):
        found["processor"] = processor["title"]
    if features := FEATURES.search(text):
        found["system_info"] = features["features"].strip(" |")
    buffers: dict[str, float] = defaultdict(float)
    for match in BUFFER.finditer(text):
        buffers[match["place"]] += float(match["mib"])
    if layers := LAYERS.search(text):
        found["layers_on_devices"] = f"{layers['there']}/{layers['all']}"
    for size in SIZE.finditer(text):
        found.setdefault(size["name"], int(size["number"]))
    if drafters := DRAFTER.findall(text):
        found["speculative"] = ", ".join(drafters)
    if cache := CACHE.search(text):
        found["cache_types"] = f"{cache['keys']}/{cache['values']}"
    if buffers:
        found["model_buffers_mib"] = {**buffers}
        on_processor = not used or (layers is not None and layers["there"] == "0")
        found["device"] = "cpu" if on_processor else _device(used[0]["name"])
        found["devices"] = [] if on_processor else [f"{each['name']} ({each['title']}, {each['id']})" for each in used]
    return found


def _device(name: str) -> str:
    """A device of ggml as torch names it; what torch does not have keeps its own name."""
    if cuda := CUDA.match(name):
        return f"cuda:{cuda['index']}"
    numbered = NUMBERED.match(name)
    return f"{numbered['kind'].lower()}:{numbered['index']}" if numbered else name
