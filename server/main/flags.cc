// The flags and their help texts, which are their reference: sessa-server --help.
#include "server/main/flags.h"

#include "absl/flags/flag.h"

ABSL_FLAG(std::string, model, "", "checkpoint folder: config.json, tokenizer.json, *.safetensors");
ABSL_FLAG(std::string, generation_config, "auto",
          "auto: what the checkpoint's generation_config.json says (temperature, top_p, top_k, min_p, "
          "repetition_penalty) is the default of requests that do not say, and its max_new_tokens the most "
          "that any gets; none: it does not count. "
          "The tokens that it lets answers end with (eos_token_id) do so in any case");
ABSL_FLAG(std::string, chat_template, "",
          "file with the Jinja template of chats, in place of the checkpoint's own");
ABSL_FLAG(std::string, served_model_name, "", "name in the API; default: the folder's name");
ABSL_FLAG(std::string, host, "127.0.0.1",
          "address to listen on; 0.0.0.0 for all. Another than the loopback needs --api_keys_file, "
          "--tls_client_ca or --insecure");
ABSL_FLAG(std::string, cache_events, "",
          "a ZeroMQ endpoint, as tcp://127.0.0.1:5557, where routers are told which pages come to the prefix "
          "cache and leave it, as vLLM tells them (docs/scale.md); whoever reads it reads the tokens of all "
          "prompts; empty: nobody is told");
ABSL_FLAG(std::string, cache_events_topic, "", "what their messages begin with; llm-d wants kv@POD@MODEL");
ABSL_FLAG(bool, insecure, false,
          "whoever reaches the server's address may use it, without a key or a certificate");
ABSL_FLAG(int32_t, http_port, 8000, "REST and metrics; 0: the system picks");
ABSL_FLAG(int32_t, grpc_port, 8001, "gRPC; 0: the system picks");
ABSL_FLAG(
    std::string, admin_port, "auto",
    "probes and metrics on a port and a thread of their own, without TLS, beside those on the HTTP port: a "
    "port, 0: the system picks, or off; auto: 8002, but 0 with --http_port=0");
ABSL_FLAG(std::string, admin_host, "", "address of the admin port; default: that of --host");
ABSL_FLAG(int32_t, max_http_connections, 4096,
          "open at once; fewer where the limit of file descriptors, which is raised at start, asks for it");
ABSL_FLAG(int32_t, max_grpc_connections, 1024, "as --max_http_connections");
ABSL_FLAG(
    std::string, api_keys_file, "",
    "a line for each key, as --make_key prints it: 'sha256:HEX [TENANT]', and what its tenant may: weight=N "
    "(tenants that wait share the engine by weight; 1 to 1000, 1 without), rate=R (requests a second) with "
    "burst=N (at once), tokens_per_minute=N, max_requests=N (running at once), min_priority=N and "
    "max_priority=N. Read again at SIGHUP and when it changes; without the file: no keys are asked for");
ABSL_FLAG(
    std::string, make_key, "",
    "TENANT, or 'TENANT weight=4 rate=10 ...': prints a new key on stderr and its line for the key file "
    "on stdout, and exits: sessa-server --make_key=alice >> keys");
ABSL_FLAG(std::string, hash_keys, "",
          "a key file: prints it with hashes in place of keys in plain text, and exits");
ABSL_FLAG(
    std::string, tls_cert, "",
    "PEM certificate chain; with --tls_key, for both ports. Read again at SIGHUP and when the files change");
ABSL_FLAG(std::string, tls_key, "", "PEM private key");
ABSL_FLAG(std::string, tls_client_ca, "",
          "PEM certificates: clients of both ports must have one that these have signed");
ABSL_FLAG(std::string, cors_allow_origins, "",
          "origins of web pages elsewhere that may use the REST API, with commas, such as "
          "http://localhost:3000, or * for all; none: the server's own page alone");
ABSL_FLAG(std::string, log_format, "text",
          "text for people or json for machines, on stderr: every line has its time and level");
ABSL_FLAG(std::string, log_level, "info", "the least that is logged: info, warning or error");
ABSL_FLAG(std::string, access_log, "on",
          "on or off: a line of level info for each generation request, with who asked, how it ended and "
          "why, tokens and "
          "times");
ABSL_FLAG(
    sessa::FlagSeconds, settle_seconds, {0},
    "after SIGTERM readiness is off, but requests are taken for so long: balancers need a moment to see it");
ABSL_FLAG(sessa::FlagSeconds, drain_seconds, {30},
          "after that what runs may go on for so long; a second signal ends it");
ABSL_FLAG(sessa::FlagSeconds, request_timeout_seconds, {600}, "of a request that names none");
ABSL_FLAG(sessa::ByteSize, max_body_bytes, {4 << 20}, "of one request");
ABSL_FLAG(sessa::ByteSize, max_answer_bytes, {64 << 20},
          "of one answer with all its choices; a request whose answer may be larger is refused");
ABSL_FLAG(sessa::ByteSize, max_buffered_bytes, {256 << 20},
          "held for clients at once: bodies that come or wait, tokens and answers that are not read yet; at "
          "least four times --max_body_bytes and once --max_answer_bytes");
ABSL_FLAG(int32_t, max_requests_per_tenant, 0, "running at once for one API key; 0: no limit");

ABSL_FLAG(std::string, device, "cpu", "cpu, or cuda where the build has it; rank i takes GPU i");
ABSL_FLAG(bool, batch_invariant, false,
          "cuda: the same bits in any batch, by slower kernels; a CPU always gives them");
ABSL_FLAG(int32_t, tensor_parallel_size, 1,
          "ranks: 1, 2, 4 or 8; threads of this process, or with --group_address processes");
ABSL_FLAG(
    std::string, group_address, "",
    "HOST:PORT: every rank is a process of its own, on this machine or others. Rank 0, the leader, "
    "listens there until the others have come, and serves; those find it there and have the same model "
    "and the same flags of formats and state. With another address than the loopback's it belongs into a "
    "private network, and needs --group_secret_file or --insecure: what the ranks exchange is not "
    "encrypted. On GPUs NCCL makes connections of its own");
ABSL_FLAG(int32_t, rank, 0, "of this process in the group; those above 0 take no requests");
ABSL_FLAG(std::string, group_secret_file, "",
          "a text of at least 16 bytes that all processes of the group have, and nobody else: who does not "
          "know it cannot join or lead");
ABSL_FLAG(
    sessa::FlagSeconds, group_silence_seconds, {10},
    "a rank that gives no sign of life for so long is lost, and the group ends: requests that run fail, "
    "and every process exits with 1. One whose connection ends is lost at once");
ABSL_FLAG(sessa::FlagSeconds, group_start_seconds, {600},
          "what the processes may take to find each other, before they load");
ABSL_FLAG(int32_t, threads, 0, "CPU threads of a rank; 0: cores / ranks, of a rank with a process all cores");
ABSL_FLAG(std::string, weight_dtype, "auto",
          "auto, f32, bf16 or int8 (quantised at load); auto: the checkpoint's, f32 for f16");
ABSL_FLAG(std::string, state_dtype, "auto",
          "auto, f32, bf16 or int8 (half of bf16's memory); auto: the weights', bf16 for int8 weights");
ABSL_FLAG(
    std::string, activation_dtype, "auto",
    "auto, f32, or bf16: linears round what they read, as far as bf16 weights were rounded; or int8: of "
    "int8 weights, to 8 bits rather than 16, with AVX-512 VNNI or AMX, for faster prompts; auto: bf16 for "
    "bf16 weights on CPUs that multiply bf16 faster (AMX; AVX-512 BF16 of AMD), for int8 ones on AMX, else "
    "f32");
ABSL_FLAG(
    std::string, amx, "auto",
    "auto or off: linears of bf16 and int8 weights and reads of bf16 and int8 state run on AMX where the CPU "
    "has it, with f32 activations as exactly as without (1e-5 of the largest value) but with other bits");
ABSL_FLAG(int32_t, page_size, 64, "tokens in a page of state: 16, 32 or 64");
ABSL_FLAG(
    sessa::ByteSize, state_cache_bytes, {0},
    "memory for state; 0: a quarter of the free memory, at most 4 GiB, or under a container's limit half of "
    "what it leaves; cuda: nine tenths");
ABSL_FLAG(int32_t, max_model_len, 0,
          "prompt and generated tokens; 0: the checkpoint's max_position_embeddings, or what the state cache "
          "holds");
ABSL_FLAG(int32_t, max_num_seqs, 0,
          "sequences in one step; 0: 256, fewer where the slots of a recurrent state are scarce, so that a "
          "quarter of them is left for prefix caching");
ABSL_FLAG(int32_t, max_step_tokens, 0, "new tokens in one step; 0: 1024, cuda: 2048");
ABSL_FLAG(
    sessa::FlagMilliseconds, target_step_ms, {100},
    "prompts are cut into chunks that keep steps within this, as predicted. A stream gets one token a step: "
    "while prompts are computed this is its mean inter-token latency; a single gap may be planned at 1.5 "
    "times this, where smaller chunks would waste time deep in a prompt. Set it to two or three times the "
    "inter-token latency of the streams alone: they keep that, and what is left computes prompts, which "
    "have a quarter of the time in any case");
ABSL_FLAG(std::string, speculation, "auto",
          "ngram:K guesses up to K (1 to 16) tokens of a sequence ahead, as the text went on where its last "
          "tokens stood before, and verifies them in one step: text that repeats what it is made from comes "
          "faster, and the tokens are the same to the bit. Where guesses do not pay none are made. auto: "
          "ngram:8, but off for models of recurrent state, and on CUDA without --batch_invariant, where "
          "other batches mean other bits; off: none. Requests may ask for another number "
          "(num_speculative_tokens)");
ABSL_FLAG(int32_t, max_queued_requests, 1024, "requests that may wait");
ABSL_FLAG(int64_t, max_queued_tokens, 1 << 20, "prompt tokens that may wait");
ABSL_FLAG(
    sessa::FlagSeconds, max_queue_seconds, {30},
    "a request that would wait longer before its prompt is begun, as predicted, is refused with 503 and a "
    "Retry-After, or as long as its own prompt takes where that is longer; so is one that would miss its "
    "deadline; 0: only the deadline counts");
ABSL_FLAG(int32_t, max_preemptions, 4,
          "of one sequence; 0: none ever, its pages are reserved when it starts");
ABSL_FLAG(bool, prefix_caching, true, "share the state of equal prefixes");

namespace sessa {

const Program& Server() {
  static const auto* const program = new Program{
      "sessa-server",
      "sessa-server: serves a Sessa model over REST and gRPC.\n\n"
      "  sessa-server MODEL [flags]                    MODEL: a checkpoint folder\n"
      "  sessa-server --make_key=alice >> keys         a new API key\n\n"
      "Exit codes: 0 after SIGTERM or SIGINT; 1 with a line that says what is wrong.\n"
      "Sizes are bytes, or as 512MiB or 4GB; times are what the flag's name says, or as 250ms or 2m.\n",
      "SESSA_",
      {
          {"Model", {"model", "generation_config", "chat_template", "served_model_name"}},
          {"Addresses",
           {"host", "http_port", "grpc_port", "admin_host", "admin_port", "max_http_connections",
            "max_grpc_connections", "cache_events", "cache_events_topic"}},
          {"Who may use it",
           {"api_keys_file", "make_key", "hash_keys", "tls_cert", "tls_key", "tls_client_ca", "insecure",
            "cors_allow_origins"}},
          {"Limits of requests and answers",
           {"request_timeout_seconds", "max_body_bytes", "max_answer_bytes", "max_buffered_bytes",
            "max_requests_per_tenant"}},
          {"Waiting", {"max_queued_requests", "max_queued_tokens", "max_queue_seconds"}},
          {"Device and number formats",
           {"device", "tensor_parallel_size", "threads", "weight_dtype", "state_dtype", "activation_dtype",
            "amx", "batch_invariant"}},
          {"Ranks in several processes",
           {"group_address", "rank", "group_secret_file", "group_silence_seconds", "group_start_seconds"}},
          {"State cache",
           {"state_cache_bytes", "page_size", "max_model_len", "prefix_caching", "max_preemptions"}},
          {"Steps", {"max_num_seqs", "max_step_tokens", "target_step_ms", "speculation"}},
          {"Log", {"log_format", "log_level", "access_log"}},
          {"The end (SIGTERM)", {"settle_seconds", "drain_seconds"}},
      }};
  return *program;
}

}  // namespace sessa
