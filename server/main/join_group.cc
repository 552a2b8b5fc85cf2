#include "server/main/join_group.h"

#include <openssl/sha.h>

#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "engine/engine_options.h"
#include "flags/version.h"
#include "server/file/read_file.h"

namespace sessa {
namespace {

// What all processes must have alike, or they would compute different models, or wait for each other for
// ever.
absl::StatusOr<GroupFacts> Facts(const MainOptions& options, const EngineOptions& given,
                                 const Checkpoint& checkpoint) {
  const absl::StatusOr<std::string> config = ReadFile(options.model_dir + "/config.json");
  if (!config.ok()) return config.status();
  const absl::StatusOr<EngineOptions> complete =
      CompleteOptions(given, checkpoint.config(), /*own_process=*/true);
  if (!complete.ok()) return complete.status();
  const EngineOptions& o = *complete;
  std::string digest(SHA256_DIGEST_LENGTH, '\0');
  SHA256(reinterpret_cast<const unsigned char*>(config->data()), config->size(),
         reinterpret_cast<unsigned char*>(digest.data()));
  return GroupFacts{
      {"the version", kVersion},
      {"the SHA-256 of config.json", absl::BytesToHexString(digest)},
      {"the size of the weights", absl::StrCat(checkpoint.num_bytes(), " bytes")},
      {"--tensor_parallel_size", absl::StrCat(o.tensor_parallel_size)},
      {"--device", o.device == DeviceType::kCuda ? "cuda" : "cpu"},
      {"--weight_dtype", Name(o.weight_dtype)},
      {"--state_dtype", Name(o.state_dtype)},
      {"--activation_dtype", Name(o.activation_dtype)},
      {"AMX", o.amx ? "used" : "not used"},
      {"--batch_invariant", o.batch_invariant ? "true" : "false"},
      {"--page_size", absl::StrCat(o.page_size)},
      {"--state_cache_bytes", absl::StrCat(o.state_cache_bytes)},
      {"--max_model_len", absl::StrCat(o.max_model_len)},
      {"--max_step_tokens", absl::StrCat(o.max_step_tokens)},
  };
}

}  // namespace

absl::StatusOr<std::shared_ptr<ProcessGroup>> JoinGroup(const MainOptions& options,
                                                        const EngineOptions& engine,
                                                        const Checkpoint& checkpoint, GroupEvents events) {
  const absl::StatusOr<GroupFacts> facts = Facts(options, engine, checkpoint);
  if (!facts.ok()) return facts.status();
  return ProcessGroup::Form(*options.group, *facts, std::move(events));
}

std::shared_ptr<RankGroup> RanksOf(const std::shared_ptr<ProcessGroup>& group) {
  return {group, group->ranks()};
}

}  // namespace sessa
