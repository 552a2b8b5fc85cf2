#include "engine/state_cache.h"

namespace sessa {

absl::StatusOr<StateCache> StateCache::Create(absl::Span<const StateShape> shapes, const StateSize& size,
                                              int rank, Backend* backend) {
  StateCache cache;
  const int own = size.num_pages / size.num_ranks;
  for (const StateShape& shape : shapes) {
    LayerState& layer = cache.layers_.emplace_back();
    for (const PagedShape& paged : shape.paged) {
      auto tensor = backend->AllocatePages(paged, size.page_size, paged.by_tile ? own * rank : 0,
                                           paged.by_tile ? own : size.num_pages);
      if (!tensor.ok()) return tensor.status();
      layer.paged.push_back(*std::move(tensor));
    }
    for (int64_t floats : shape.slots) {
      auto memory = backend->Allocate(floats * sizeof(float) * size.num_slots);
      if (!memory.ok()) return memory.status();
      layer.slots.push_back({floats, *std::move(memory)});
    }
  }
  return cache;
}

int64_t StateCache::BytesPerPage(absl::Span<const StateShape> shapes, int page_size, int rank,
                                 const Backend& backend) {
  int64_t bytes = 0;
  for (const StateShape& shape : shapes) {
    for (const PagedShape& paged : shape.paged) {
      if (!paged.by_tile || rank == 0) bytes += static_cast<int64_t>(backend.BytesPerPage(paged, page_size));
    }
  }
  return bytes;
}

int64_t StateCache::BytesPerSlot(absl::Span<const StateShape> shapes) {
  int64_t floats = 0;
  for (const StateShape& shape : shapes) {
    for (int64_t slot : shape.slots) floats += slot;
  }
  return floats * static_cast<int64_t>(sizeof(float));
}

}  // namespace sessa
