#include "engine/state_cache.h"

namespace sessa {

absl::StatusOr<StateCache> StateCache::Create(const LayerState& shape, int num_layers, int num_pages,
                                              Backend* backend) {
  StateCache cache;
  for (int i = 0; i < num_layers; ++i) {
    LayerState layer;
    layer.dtype = shape.dtype;
    layer.page_size = shape.page_size;
    layer.num_kv_heads = shape.num_kv_heads;
    layer.head_dim = shape.head_dim;
    layer.hidden_size = shape.hidden_size;
    layer.first_feedback_page = shape.first_feedback_page;
    layer.num_feedback_pages = shape.num_feedback_pages;
    if (absl::Status s = backend->AllocateState(num_pages, &layer); !s.ok()) return s;
    cache.layers_.push_back(std::move(layer));
  }
  return cache;
}

}  // namespace sessa
