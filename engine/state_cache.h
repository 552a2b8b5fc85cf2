// The device memory of one rank's state: for each layer, the tensors that the layer keeps (kernels/state.h).
// Which page or slot belongs to whom is the scheduler's side; here are only the bytes. Owned by the rank.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/page_geometry.h"
#include "kernels/backend.h"

namespace sessa {

class StateCache {
 public:
  // Of one rank. `shapes`: of each layer (Model::StateShapes). RESOURCE_EXHAUSTED; INVALID_ARGUMENT as of
  // AllocatePages.
  static absl::StatusOr<StateCache> Create(absl::Span<const StateShape> shapes, const StateSize& size,
                                           int rank, Backend* backend);
  LayerState* layer(int i) { return &layers_[i]; }
  int num_layers() const { return static_cast<int>(layers_.size()); }

  // What one page, and one slot, of all layers takes on all ranks together; the shapes are those of a rank.
  // Tensors that are dealt out by tile count once, on rank 0.
  static int64_t BytesPerPage(absl::Span<const StateShape> shapes, int page_size, int rank,
                              const Backend& backend);
  static int64_t BytesPerSlot(absl::Span<const StateShape> shapes);

 private:
  std::vector<LayerState> layers_;
};

}  // namespace sessa
