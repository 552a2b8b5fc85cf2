// The command line, read once. Values that only the engine or the checkpoint can judge are judged there.
#pragma once

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/engine.h"
#include "server/core/access_log.h"
#include "server/core/limits.h"

namespace sessa {

struct MainOptions {
  // Print and exit; the rest is empty then.
  std::string make_key;   // what follows the new key on its line
  std::string hash_keys;  // a key file

  std::string model_dir;
  std::string served_model_name;  // empty: the model folder's name
  std::string host;
  int http_port = 0, grpc_port = 0;  // 0: the system picks
  std::string api_keys_file;         // empty: no keys
  std::string tls_cert, tls_key;     // paths; both or none
  AccessLogFormat access_log = AccessLogFormat::kOff;
  absl::Duration settle, drain;
  std::optional<DType> weight_dtype, state_dtype;  // none: auto
  EngineOptions engine;                            // but for the dtypes
  Limits limits;
};

// Parses argv (also --flagfile) and checks what needs no file. INVALID_ARGUMENT names the flag.
absl::StatusOr<MainOptions> ParseOptions(int argc, char** argv);

}  // namespace sessa
