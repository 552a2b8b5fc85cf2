// A checkpoint folder: config.json and model.safetensors, or the shards that model.safetensors.index.json
// names. The files stay mapped as long as the Checkpoint lives; weights are read in place.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "engine/config.h"
#include "engine/weights.h"
#include "server/checkpoint/safetensors.h"

namespace sessa {

// Thread-safe.
class Checkpoint : public WeightSource {
 public:
  // Errors name the file and, in it, the key or the tensor and its field. A shard's name must be a plain file
  // name.
  static absl::StatusOr<std::unique_ptr<Checkpoint>> Open(const std::string& dir);

  const ModelConfig& config() const { return config_; }

  // NOT_FOUND when there is no such tensor, INVALID_ARGUMENT when its dtype is none for weights.
  absl::StatusOr<WeightView> Get(std::string_view name) const override;

  // Names of the tensors that nobody has asked for yet, sorted: after loading, a reason for a warning.
  std::vector<std::string> unused_tensors() const;

 private:
  Checkpoint() = default;

  std::string dir_;
  ModelConfig config_;
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  absl::flat_hash_map<std::string, const TensorView*> tensors_;
  mutable absl::Mutex mutex_;
  mutable absl::flat_hash_set<std::string> used_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace sessa
