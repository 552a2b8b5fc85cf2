// The command line, read once. What it takes a checkpoint to judge is judged there.
#pragma once

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/engine.h"
#include "server/cache_events/cache_events.h"
#include "server/core/limits.h"
#include "server/core/log.h"
#include "server/group/process_group.h"
#include "server/net/descriptors.h"
#include "server/net/tls_context.h"
#include "server/rest/cors.h"

namespace sessa {

struct MainOptions {
  // Print and exit; the rest is empty then.
  std::string text;       // --help, --version
  std::string make_key;   // what follows the new key on its line
  std::string hash_keys;  // a key file

  std::string model_dir;
  std::string served_model_name;  // empty: the model folder's name
  std::string chat_template;      // a file; empty: the checkpoint's own
  bool sampling_defaults = true;  // those of generation_config.json are obeyed
  std::string host;
  int http_port = 0, grpc_port = 0;  // 0: the system picks
  std::string admin_host;
  std::optional<int> admin_port;  // none: probes and metrics are on the HTTP port alone
  ConnectionCaps max_connections;
  std::string api_keys_file;        // empty: no keys
  TlsFiles tls;                     // cert and key or neither
  CacheEventsOptions cache_events;  // no endpoint: off
  Cors cors;
  LogOptions log;
  bool access_log = true;
  absl::Duration settle, drain;
  std::optional<GroupOptions> group;                                 // none: one process
  std::optional<DType> weight_dtype, state_dtype, activation_dtype;  // none: auto
  EngineOptions engine;                                              // but for the dtypes
  Limits limits;
};

// From argv and the environment (flags/command_line.h). Checks what needs no checkpoint. Errors name the
// flag.
absl::StatusOr<MainOptions> ParseOptions(int argc, char** argv);

}  // namespace sessa
