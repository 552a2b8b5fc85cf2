#include "server/checkpoint/generation_config.h"

#include <boost/json.hpp>

#include "absl/strings/str_cat.h"
#include "server/checkpoint/config_reader.h"
#include "server/file/read_file.h"

namespace sessa {

absl::StatusOr<GenerationConfig> ParseGenerationConfig(absl::string_view text) {
  boost::json::error_code ec;
  const boost::json::value root = boost::json::parse({text.data(), text.size()}, ec);
  if (ec) return absl::InvalidArgumentError(absl::StrCat("not JSON: ", ec.message()));
  const boost::json::object* object = root.if_object();
  if (object == nullptr) return absl::InvalidArgumentError("not a JSON object");
  GenerationConfig config;
  ConfigReader read(*object);
  read.Ids("eos_token_id", &config.eos_token_ids);
  read.Double("temperature", &config.sampling.temperature);
  read.Double("top_p", &config.sampling.top_p);
  read.Double("min_p", &config.sampling.min_p);
  read.Double("repetition_penalty", &config.sampling.repetition_penalty);
  read.Int64("top_k", &config.sampling.top_k);
  read.Int64("max_new_tokens", &config.sampling.max_tokens);
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
