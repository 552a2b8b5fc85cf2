"""How each program is given SmolLM2 and started: our server, and the peers in Pythons and builds of their own under the work folder.
Each gets both cores, and state for 16 sequences of 2048 tokens and an answer."""
import dataclasses
import os
import pathlib

HERE = pathlib.Path(__file__).parent
CONTEXT = 2560


@dataclasses.dataclass(frozen=True)
class Program:
    key: str
    name: str
    weights: str
    command: tuple  # {folder}, {work}, {port}, {ours}, {threads} are filled in
    environment: dict = dataclasses.field(default_factory=dict)
    flags: tuple = ()  # of sessa-loadtest
    in_process: bool = False  # it has no server: runs the loads itself and prints their figures


def ours(key, name, weights, *flags):
    return Program(key, name, weights, ("{ours}", "--model={folder}", "--http_port={port}", "--grpc_port=0", "--threads={threads}",
                                        "--served_model_name=smollm2", "--max_num_seqs=16", f"--max_model_len={CONTEXT}", *flags))


def llama_cpp(key, weights):
    return Program(key, "llama.cpp", weights,
                   ("{work}/llama.cpp/bin/llama-server", "-m", f"{{work}}/smollm2-{weights}.gguf", "--host", "127.0.0.1", "--port",
                    "{port}", "-t", "{threads}",
                    "-tb", "{threads}", "-np", "16", "-c", str(16 * CONTEXT), "--no-webui"))


PROGRAMS = (
    ours("ours", "sessa-server", "bf16"),
    ours("ours-bf16", "sessa-server, bf16 activations", "bf16", "--activation_dtype=bf16"),
    ours("ours-noamx", "sessa-server, without AMX", "bf16", "--amx=off"),
    ours("ours-int8", "sessa-server", "int8", "--weight_dtype=int8"),
    llama_cpp("llama.cpp", "bf16"),
    llama_cpp("llama.cpp-q8", "q8_0"),
    Program("vllm", "vLLM", "bf16",
            ("{work}/vllm/bin/python", "-m", "vllm.entrypoints.openai.api_server", "--model", "{folder}", "--host", "127.0.0.1",
             "--port", "{port}", "--served-model-name", "smollm2", "--dtype", "bfloat16", "--max-num-seqs", "16", "--max-model-len",
             str(CONTEXT)),
            {"VLLM_CACHE_ROOT": "{work}/vllm/cache", "VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_CPU_OMP_THREADS_BIND": "0-1", "VLLM_NO_USAGE_STATS": "1"}),
    Program("openvino", "OpenVINO GenAI", "f16", ("{work}/openvino/bin/python", str(HERE / "openvino_genai_peer.py"), "{work}/smollm2-f16.gguf"),
            in_process=True),
    Program("openvino-q8", "OpenVINO GenAI", "q8_0", ("{work}/openvino/bin/python", str(HERE / "openvino_genai_peer.py"), "{work}/smollm2-q8_0.gguf"),
            in_process=True),
    # Takes no ids, and ends where the model does.
    Program("transformers", "transformers", "bf16",
            ("{work}/transformers/bin/transformers", "serve", "{folder}", "--host", "127.0.0.1", "--port", "{port}", "--device", "cpu",
             "--dtype", "bfloat16"),
            flags=("--prompt_as=text", "--noreturn_token_ids", "--noignore_eos", "--model={folder}")),
)


def fill(program, values):
    """(command, environment, sessa-loadtest's flags)"""
    command = [part.format(**values) for part in program.command]
    environment = {**os.environ, "OMP_NUM_THREADS": str(values["threads"]), "HF_HUB_OFFLINE": "1",
                   **{name: value.format(**values) for name, value in program.environment.items()}}
    return command, environment, ["--model=smollm2", *(flag.format(**values) for flag in program.flags)]
