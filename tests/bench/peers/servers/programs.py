"""How each program is given the model and started: our server, and the peers in Pythons and builds of their own under the work folder.
Each gets both cores, and state for 16 sequences of 2048 tokens and an answer."""
import dataclasses
import os
import pathlib

HERE = pathlib.Path(__file__).parent
CONTEXT = 2560
MODELS = ("smollm2", "random")


@dataclasses.dataclass(frozen=True)
class Program:
    key: str
    name: str
    weights: str
    command: tuple  # {folder}, {work}, {model}, {port}, {ours}, {threads} are filled in
    environment: dict = dataclasses.field(default_factory=dict)
    flags: tuple = ()  # of sessa-loadtest
    in_process: bool = False  # it has no server: runs the loads itself and prints their figures
    start_seconds: int = 120  # to the first token
    models: tuple = MODELS  # that it is measured with
    slow: bool = False  # it gets a quarter of the requests

    @property
    def is_ours(self):
        return self.key.startswith("ours")

    @property
    def bits(self):
        return 16 if self.weights in ("bf16", "f16") else 8


def ours(key, name, weights, *flags, folder="{folder}", models=MODELS):
    # A token a step, as in the others: what they answer to random prompts repeats itself.
    return Program(key, name, weights, ("{ours}", f"--model={folder}", "--http_port={port}", "--grpc_port=0", "--admin_port=off",
                                        "--threads={threads}", "--served_model_name={model}", "--max_num_seqs=16",
                                        f"--max_model_len={CONTEXT}", "--speculation=off", *flags), models=models)


def llama_cpp(key, weights):
    return Program(key, "llama.cpp", weights,
                   ("{work}/llama.cpp/bin/llama-server", "-m", f"{{work}}/{{model}}-{weights}.gguf", "--host", "127.0.0.1", "--port",
                    "{port}", "--alias", "{model}", "-t", "{threads}", "-tb", "{threads}", "-np", "16", "-c", str(16 * CONTEXT), "--no-webui"))


def openvino(key, weights):
    return Program(key, "OpenVINO GenAI", weights,
                   ("{work}/openvino/bin/python", str(HERE / "openvino_genai_peer.py"), f"{{work}}/{{model}}-{weights}.gguf"), in_process=True)


SESSA = {"folder": "{work}/random-sessa", "models": ("random",)}
PROGRAMS = (
    ours("ours", "sessa-server", "bf16"),
    ours("ours-f32", "sessa-server, float32 activations", "bf16", "--activation_dtype=f32"),
    ours("ours-noamx", "sessa-server, without AMX", "bf16", "--amx=off", models=("smollm2",)),
    ours("ours-int8", "sessa-server", "int8", "--weight_dtype=int8"),
    ours("ours-w8a8", "sessa-server, 8-bit activations", "int8", "--weight_dtype=int8", "--activation_dtype=int8"),
    ours("ours-sessa", "sessa-server, a Sessa", "bf16", **SESSA),
    ours("ours-sessa-int8", "sessa-server, a Sessa", "int8", "--weight_dtype=int8", **SESSA),
    llama_cpp("llama.cpp", "bf16"),
    llama_cpp("llama.cpp-q8", "q8_0"),
    # Compiles its graphs at start: minutes.
    Program("vllm", "vLLM", "bf16",
            ("{work}/vllm/bin/python", "-m", "vllm.entrypoints.openai.api_server", "--model", "{folder}", "--host", "127.0.0.1",
             "--port", "{port}", "--served-model-name", "{model}", "--dtype", "bfloat16", "--max-num-seqs", "16", "--max-model-len",
             str(CONTEXT)),
            {"VLLM_CACHE_ROOT": "{work}/vllm/cache", "VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_CPU_OMP_THREADS_BIND": "0-1", "VLLM_NO_USAGE_STATS": "1"},
            start_seconds=600),
    openvino("openvino", "f16"),
    openvino("openvino-q8", "q8_0"),
    # Takes no ids, ends where the model does, and answers one after the other.
    Program("transformers", "transformers, a quarter of the requests", "bf16",
            ("{work}/transformers/bin/transformers", "serve", "{folder}", "--host", "127.0.0.1", "--port", "{port}", "--device", "cpu",
             "--dtype", "bfloat16"),
            flags=("--prompt_as=text", "--noreturn_token_ids", "--noignore_eos", "--drain_seconds=180", "--model={folder}"), models=("smollm2",), slow=True),
)


def of_model(model):
    return [program for program in PROGRAMS if model in program.models]


def fill(program, values):
    """(command, environment, sessa-loadtest's flags)"""
    command = [part.format(**values) for part in program.command]
    environment = {**os.environ, "OMP_NUM_THREADS": str(values["threads"]), "HF_HUB_OFFLINE": "1",
                   **{name: value.format(**values) for name, value in program.environment.items()}}
    return command, environment, [f"--model={values['model']}", *(flag.format(**values) for flag in program.flags)]
