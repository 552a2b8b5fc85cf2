"""CTranslate2 on a Transformer decoder of shape A with random weights, made through its model specification: one sequence,
greedy. Its interface gives no single steps: a decode sample is the time between two callbacks of one generation, a
prefill the time to the first; tokens before a prefill are its cached static prompt."""
import json
import pathlib
import time

import ctranslate2
import numpy as np
from ctranslate2.specs import common_spec, transformer_spec

import measure
import shape

QUANTIZATIONS = {"f32": "float32", "int8": "int8"}


def write_model(folder, quantization):
    spec = transformer_spec.TransformerDecoderModelSpec.from_config(
        shape.LAYERS, shape.HEADS, num_heads_kv=shape.KV_HEADS, activation=common_spec.Activation.SWISH, ffn_glu=True,
        rms_norm=True, rotary_dim=0, rotary_interleave=False)
    rng = np.random.default_rng(1)

    def matrix(layer, rows, columns):
        layer.weight = rng.standard_normal((rows, columns), dtype=np.float32) / np.sqrt(columns, dtype=np.float32)

    def norm(layer):
        layer.gamma = np.ones(shape.HIDDEN, np.float32)

    decoder = spec.decoder
    decoder.scale_embeddings = False
    matrix(decoder.embeddings, shape.VOCAB, shape.HIDDEN)
    matrix(decoder.projection, shape.VOCAB, shape.HIDDEN)
    norm(decoder.layer_norm)
    for layer in decoder.layer:
        norm(layer.self_attention.layer_norm)
        matrix(layer.self_attention.linear[0], shape.HIDDEN + 2 * shape.KV, shape.HIDDEN)
        matrix(layer.self_attention.linear[1], shape.HIDDEN, shape.HIDDEN)
        norm(layer.ffn.layer_norm)
        matrix(layer.ffn.linear_0, shape.FFN, shape.HIDDEN)
        matrix(layer.ffn.linear_0_noact, shape.FFN, shape.HIDDEN)
        matrix(layer.ffn.linear_1, shape.HIDDEN, shape.FFN)
    spec.register_vocabulary([f"t{i}" for i in range(shape.VOCAB)])
    spec.config.bos_token = spec.config.eos_token = spec.config.unk_token = "t0"
    spec.validate()
    spec.optimize(quantization)
    folder.mkdir(parents=True)
    spec.save(str(folder))


def tokens(n):
    return [f"t{1 + i % 1000}" for i in range(n)]


def generate(generator, static, prompt, count):
    """Seconds from the start, at which each of `count` tokens came."""
    times = []

    def note(result):
        del result
        times.append(time.perf_counter())
        return False

    begin = time.perf_counter()
    generator.generate_batch([prompt], static_prompt=static, max_length=count, min_length=count, sampling_topk=1, beam_size=1,
                             include_prompt_in_result=False, callback=note)
    assert len(times) == count, f"asked for {count} tokens, got {len(times)}"
    return [t - begin for t in times]


def main():
    arguments = measure.parse_arguments(list(QUANTIZATIONS), work_dir=True)
    folder = pathlib.Path(arguments.work_dir) / f"ctranslate2-{shape.FFN}-{arguments.weights}"
    if not (folder / "model.bin").exists():
        write_model(folder, QUANTIZATIONS[arguments.weights])
    generator = ctranslate2.Generator(str(folder), device="cpu", compute_type=QUANTIZATIONS[arguments.weights],
                                      inter_threads=1, intra_threads=arguments.threads)
    answer = {}
    for workload in shape.WORKLOADS:
        if workload.rows == 1:
            count = measure.DECODE_TOKENS * arguments.decode_samples + 1
            # Centred: the samples' mean context is the workload's.
            times = generate(generator, None, tokens(workload.context - count // 2), count)
            answer[workload.name] = [(times[i + measure.DECODE_TOKENS] - times[i]) / measure.DECODE_TOKENS
                                     for i in range(0, count - 1, measure.DECODE_TOKENS)]
        else:
            static = tokens(workload.context) if workload.context else None
            generate(generator, static, tokens(workload.rows), 1)  # warm; computes and keeps the static prompt
            answer[workload.name] = [generate(generator, static, tokens(workload.rows), 1)[0]
                                     for _ in range(arguments.prefill_samples)]
    print(json.dumps(answer))


main()
