// A checkpoint folder: config.json and model.safetensors, or the shards that model.safetensors.index.json
// names. Weights are read a
// tensor at a time, so that loading needs little more memory than the engine keeps, and a file that is cut
// while it is read is an error, not a signal.
#pragma once

#include <atomic>
#include <cstdint>
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

  // NOT_FOUND when there is no such tensor, INVALID_ARGUMENT when its dtype is none for weights or a value is
  // not finite, OUT_OF_RANGE when the file has become shorter. The last large one is kept, since linears ask
  // for theirs twice.
  absl::StatusOr<TensorView> Get(std::string_view name) const override;
  // Without reading it; the first two errors of Get.
  absl::StatusOr<DType> TypeOf(std::string_view name) const;

  int64_t num_bytes() const;  // of all tensors
  // What most of the weights are in; kF32 of none. (Mamba's few decays are f32 beside bf16.)
  DType most_common_dtype() const;
  // By Get so far: for each rank all of num_bytes(), and what is asked for twice and was not kept.
  int64_t num_bytes_read() const { return num_bytes_read_; }

  // Names of the tensors that nobody has asked for yet, sorted: after loading, a reason for a warning.
  std::vector<std::string> unused_tensors() const;

 private:
  struct Place {
    const SafetensorsFile* file;
    const StoredTensor* tensor;
  };
  Checkpoint() = default;
  absl::StatusOr<const Place*> Find(const std::string& name) const;

  std::string dir_;
  ModelConfig config_;
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  absl::flat_hash_map<std::string, Place> tensors_;
  mutable std::atomic<int64_t> num_bytes_read_{0};
  mutable absl::Mutex mutex_;
  mutable absl::flat_hash_set<std::string> used_ ABSL_GUARDED_BY(mutex_);
  mutable std::string last_name_ ABSL_GUARDED_BY(mutex_);
  mutable std::shared_ptr<const void> last_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace sessa
