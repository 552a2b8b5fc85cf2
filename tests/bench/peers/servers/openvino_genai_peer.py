"""OpenVINO GenAI, which has no server in its package: its continuous batching, in this process. Its default precision is the CPU's
best: bf16 on AMX."""
import os
import sys

import numpy as np
import openvino
import openvino_genai

import workloads


def main():
    scheduler = openvino_genai.SchedulerConfig()
    scheduler.cache_size, scheduler.max_num_seqs, scheduler.max_num_batched_tokens = 2, workloads.STREAMS, 512
    pipeline = openvino_genai.ContinuousBatchingPipeline(sys.argv[1], scheduler, "CPU",
                                                         {"INFERENCE_NUM_THREADS": int(os.environ["OMP_NUM_THREADS"])}, {})
    handles = {}

    def add(number, prompt, answer):
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens, config.ignore_eos = answer, True
        handles[number] = pipeline.add_request(number, openvino.Tensor(np.array([prompt], np.int64)), config)

    def step():
        pipeline.step()
        made = {}
        for number, handle in list(handles.items()):
            if handle.can_read():
                made[number] = sum(len(output.generated_ids) for output in handle.read().values())
            if not handle.can_read() and handle.get_status() != openvino_genai.GenerationStatus.RUNNING:
                del handles[number]
        return made

    workloads.run_in_process(add, step)


main()
