"""What is compared: shape A of a Sessa model and a Transformer of the same width, layers and weight count, four
workloads, and the work that each model's own equations ask for."""
import dataclasses

HIDDEN, LAYERS, HEADS, KV_HEADS, HEAD_DIM, VOCAB = 1024, 24, 16, 4, 64, 32000
KV = KV_HEADS * HEAD_DIM
# Sessa has 7.5 D^2 weights a layer; attention here has 2.5 D^2 and a gated MLP 3 D F: F = 27 * 64 makes 7.56 D^2.
FFN = 1728
SESSA_LAYER = 7 * HIDDEN * HIDDEN + 2 * HIDDEN * KV
TRANSFORMER_LAYER = 2 * HIDDEN * HIDDEN + 2 * HIDDEN * KV + 3 * HIDDEN * FFN


@dataclasses.dataclass(frozen=True)
class Workload:
    name: str
    rows: int     # tokens of one step: 1 is decode
    context: int  # tokens whose state is cached before it


WORKLOADS = (Workload("decode at 256", 1, 256), Workload("decode at 2048", 1, 2048),
             Workload("prefill 512 at 0", 512, 0), Workload("prefill 512 at 2048", 512, 2048))
MAX_CONTEXT = 2048 + 512 + 64


def decode_bytes(family, context, weight_bytes, state_bytes):
    """Read for one token: every weight once (one row of the embedding is nothing), and the state of `context` tokens.
    weight_bytes, state_bytes: of one value."""
    layer, state = (SESSA_LAYER, 2 * HIDDEN + 2 * KV) if family == "sessa" else (TRANSFORMER_LAYER, 2 * KV)
    return (LAYERS * layer + VOCAB * HIDDEN) * weight_bytes + LAYERS * context * state * state_bytes


def prefill_flops(family, rows, context):
    """The linears, and attention over the mean context: 4 D a pair (scores and values); Sessa 4 D more for feedback scores
    and the read or solve. The output head, used for one row, is left out."""
    layer, pair = (SESSA_LAYER, 8 * HIDDEN) if family == "sessa" else (TRANSFORMER_LAYER, 4 * HIDDEN)
    return LAYERS * rows * (2 * layer + (context + rows / 2) * pair)
