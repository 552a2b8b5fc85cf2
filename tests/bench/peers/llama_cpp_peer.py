"""llama.cpp, through its C interface, on a Transformer of shape A with random weights: one sequence, greedy."""
import ctypes
import pathlib

import gguf
import llama_cpp
import numpy as np

import measure
import shape

QUANTIZATIONS = {"f16": gguf.GGMLQuantizationType.F16, "bf16": gguf.GGMLQuantizationType.BF16,
                 "q8_0": gguf.GGMLQuantizationType.Q8_0}


def write_model(path, quantization):
    rng = np.random.default_rng(1)
    partial = path.with_suffix(".partial")
    writer = gguf.GGUFWriter(partial, "llama")
    writer.add_vocab_size(shape.VOCAB)
    writer.add_tokenizer_model("none")  # token ids alone
    writer.add_context_length(1 << 20)
    writer.add_embedding_length(shape.HIDDEN)
    writer.add_block_count(shape.LAYERS)
    writer.add_feed_forward_length(shape.FFN)
    writer.add_head_count(shape.HEADS)
    writer.add_head_count_kv(shape.KV_HEADS)
    writer.add_rope_dimension_count(shape.HEAD_DIM)
    writer.add_layer_norm_rms_eps(1e-5)

    def matrix(name, rows, columns):
        values = rng.standard_normal((rows, columns), dtype=np.float32) / np.sqrt(columns, dtype=np.float32)
        writer.add_tensor(name, gguf.quants.quantize(values, quantization), raw_dtype=quantization)

    def ones(name):
        writer.add_tensor(name, np.ones(shape.HIDDEN, np.float32))

    matrix("token_embd.weight", shape.VOCAB, shape.HIDDEN)
    for n in range(shape.LAYERS):
        ones(f"blk.{n}.attn_norm.weight")
        matrix(f"blk.{n}.attn_q.weight", shape.HIDDEN, shape.HIDDEN)
        matrix(f"blk.{n}.attn_k.weight", shape.KV, shape.HIDDEN)
        matrix(f"blk.{n}.attn_v.weight", shape.KV, shape.HIDDEN)
        matrix(f"blk.{n}.attn_output.weight", shape.HIDDEN, shape.HIDDEN)
        ones(f"blk.{n}.ffn_norm.weight")
        matrix(f"blk.{n}.ffn_gate.weight", shape.FFN, shape.HIDDEN)
        matrix(f"blk.{n}.ffn_up.weight", shape.FFN, shape.HIDDEN)
        matrix(f"blk.{n}.ffn_down.weight", shape.HIDDEN, shape.FFN)
    ones("output_norm.weight")
    matrix("output.weight", shape.VOCAB, shape.HIDDEN)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.rename(path)


class Model:
    def __init__(self, path, threads):
        llama_cpp.llama_backend_init()
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = shape.MAX_CONTEXT, 512, 512  # the rest is its own choice
        params.n_threads = params.n_threads_batch = threads
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        assert self.context, "llama.cpp made no context"
        self.memory = llama_cpp.llama_get_memory(self.context)
        self.length = 0

    def step(self, rows):
        tokens = (llama_cpp.llama_token * rows)(*range(rows))
        failed = llama_cpp.llama_decode(self.context, llama_cpp.llama_batch_get_one(tokens, rows))
        assert failed == 0, f"llama_decode returned {failed}"
        self.length += rows
        logits = np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(self.context, -1), (shape.VOCAB,))
        return int(logits.argmax())

    def prepare(self, context):
        if self.length < context:
            self.cut(0)
            for begin in range(0, context, 512):
                self.step(min(512, context - begin))
        self.cut(context)

    def cut(self, length):
        assert llama_cpp.llama_memory_seq_rm(self.memory, 0, length, -1)
        self.length = length


@llama_cpp.llama_log_callback
def quiet(level, text, data):
    del level, text, data


def main():
    arguments = measure.parse_arguments(list(QUANTIZATIONS), work_dir=True)
    llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
    path = pathlib.Path(arguments.work_dir) / f"transformer-{shape.FFN}-{arguments.weights}.gguf"
    if not path.exists():
        write_model(path, QUANTIZATIONS[arguments.weights])
    model = Model(path, arguments.threads)
    measure.run(arguments, model.prepare, model.step)


main()
