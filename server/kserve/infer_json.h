// KServe v2's POST .../infer: tensors as JSON, or behind it as bytes (Triton's extension for binary data).
#pragma once

#include <set>
#include <string>

#include "absl/status/statusor.h"
#include "server/core/generation.h"
#include "server/core/limits.h"
#include "server/kserve/tensors.h"

namespace sessa {

struct ParsedInfer {
  KserveInfer infer;
  bool binary_output = false;          // outputs are bytes,
  std::set<std::string> binary, text;  // but for those which say otherwise
};

// `header_length`: of the JSON at the body's beginning, whose tensors' bytes follow it; -1: all of it is
// JSON.
absl::StatusOr<ParsedInfer> ParseInfer(const std::string& body, int64_t header_length, const Limits& limits);

struct InferReply {
  std::string body;
  int64_t header_length = -1;  // -1: it is JSON alone
};
InferReply InferJson(const ParsedInfer& asked, const std::string& model, std::vector<KserveTensor> outputs);

}  // namespace sessa
