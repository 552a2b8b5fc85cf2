#include "server/checkpoint/generation_config.h"

#include "absl/strings/str_cat.h"
#include "server/file/json_fields.h"
#include "server/file/json_file.h"
#include "server/file/read_file.h"

namespace sessa {

absl::StatusOr<GenerationConfig> ParseGenerationConfig(absl::string_view text) {
  auto root = ParseJsonText({text.data(), text.size()}, "");
  if (!root.ok()) return root.status();
  GenerationConfig config;
  JsonFields read(*root, "");
  read.ReadIds("eos_token_id", &config.eos_token_ids);
  read.Read("temperature", &config.sampling.temperature);
  read.Read("top_p", &config.sampling.top_p);
  read.Read("min_p", &config.sampling.min_p);
  read.Read("repetition_penalty", &config.sampling.repetition_penalty);
  read.Read("top_k", &config.sampling.top_k);
  read.Read("max_new_tokens", &config.sampling.max_tokens);
  if (!read.status().ok()) return read.status();
  if (config.sampling.max_tokens.value_or(1) < 1)
    return absl::InvalidArgumentError("max_new_tokens must be at least 1");
  return config;
}

absl::StatusOr<GenerationConfig> ReadGenerationConfig(const std::string& dir) {
  const std::string path = dir + "/generation_config.json";
  auto text = ReadFile(path, size_t{1} << 20);
  if (absl::IsNotFound(text.status())) return GenerationConfig();
  if (!text.ok()) return text.status();
  auto config = ParseGenerationConfig(*text);
  if (config.ok()) return config;
  return absl::Status(config.status().code(), absl::StrCat(path, ": ", config.status().message()));
}

}  // namespace sessa
