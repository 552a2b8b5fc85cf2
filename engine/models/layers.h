// What a family of models is: the state that each of its layers keeps, the weights it reads and how a layer
// runs. One rank's share; what surrounds the layers (embedding, last norm, head) is Model's. A new family is
// a class of this kind and a line of registry.cc.
#pragma once

#include <cstddef>
#include <initializer_list>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/config.h"
#include "engine/models/loader.h"
#include "engine/models/shards.h"
#include "kernels/backend.h"
#include "kernels/communicator.h"

namespace sessa {

struct ModelOptions {
  DType weight_dtype = DType::kF32, state_dtype = DType::kF32;
  int max_rows = 512;  // of a step
};

// What layers are made for. What is pointed to outlives them.
struct ModelRank {
  const ModelConfig* config;
  ModelOptions options;
  Backend* backend;
  Communicator* communicator;
  Shard columns;  // of D, of what every layer gives
};

class Layers {
 public:
  virtual ~Layers() = default;

  virtual StateShape Shape(int layer) const = 0;
  virtual void Load(int layer, Loader* load) = 0;
  virtual absl::Status AllocateActivations() = 0;
  // Completes the step's rows (rope, waves) before they go to the backend.
  virtual void BeginStep(StepRows*) {}
  // x [rows, D] of the step becomes the layer's output; its state is appended.
  virtual void Run(int layer, Matrix x, LayerState* state) = 0;
};

// A family: how a checkpoint calls what surrounds its layers, and the layers.
struct Family {
  std::string embed, norm, head;  // tensor names without .weight
  Norm::Kind norm_kind;
  std::unique_ptr<Layers> layers;
};

// UNIMPLEMENTED, with the reason, when the device has no kernels for it.
absl::StatusOr<Family> MakeFamily(const ModelRank& rank);

// Float buffers of activations, so many values each.
absl::Status AllocateFloats(Backend* backend, std::initializer_list<std::pair<Buffer*, size_t>> buffers);

// The first rows of a buffer, dense.
inline Matrix RowsOf(const Buffer& buffer, int rows, int cols) { return {buffer.floats(), rows, cols, cols}; }

}  // namespace sessa
