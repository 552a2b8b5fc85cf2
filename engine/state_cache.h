// The device pages of one rank: for each layer, the tensors that the layer keeps for each token. Which page
// belongs to whom is PagePool's; here are only the bytes. Owned by the rank's Worker.
#pragma once

#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/backend.h"

namespace sessa {

class StateCache {
 public:
  // `shape` is what each of num_layers layers keeps (Model::StateShape). RESOURCE_EXHAUSTED.
  static absl::StatusOr<StateCache> Create(const LayerState& shape, int num_layers, int num_pages,
                                           Backend* backend);
  LayerState* layer(int i) { return &layers_[i]; }
  int num_layers() const { return static_cast<int>(layers_.size()); }

 private:
  std::vector<LayerState> layers_;
};

}  // namespace sessa
