// generation_config.json of a checkpoint: which tokens end an answer, and what to sample with unless a
// request says.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/core/sampling_defaults.h"

namespace sessa {

struct GenerationConfig {
  std::vector<int32_t>
      eos_token_ids;          // as they stand there: whether they are tokens is judged with config.json's
  SamplingDefaults sampling;  // not yet checked for range
};

// INVALID_ARGUMENT names the key that is of a wrong type. do_sample, beams and what else is there are
// ignored.
absl::StatusOr<GenerationConfig> ParseGenerationConfig(absl::string_view text);

// DIR/generation_config.json; an empty one when there is none. Errors name the file.
absl::StatusOr<GenerationConfig> ReadGenerationConfig(const std::string& dir);

}  // namespace sessa
