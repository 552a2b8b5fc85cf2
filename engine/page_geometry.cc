#include "engine/page_geometry.h"

#include <algorithm>
#include <cstdint>

#include "absl/base/macros.h"

namespace sessa {

PageGeometry::PageGeometry(int num_pages, int page_size, int num_classes)
    : num_pages_(num_pages), page_size_(page_size), num_classes_(num_classes) {
  ABSL_HARDENING_ASSERT(num_classes >= 1 && num_pages >= num_classes);
  ABSL_HARDENING_ASSERT(page_size == 16 || page_size == 32 || page_size == 64);
}

int PageGeometry::FirstOfClass(int c) const {
  return static_cast<int>(int64_t{c} * num_pages_ / num_classes_);
}

int PageGeometry::CountOfClass(int num_indices, int c) const {
  const int per_tile = kTileTokens / page_size_;
  const int tiles = num_indices / per_tile, rest = num_indices % per_tile;
  const int whole = tiles / num_classes_ + (c < tiles % num_classes_ ? 1 : 0);
  return whole * per_tile + (tiles % num_classes_ == c ? rest : 0);
}

int64_t PageGeometry::PagesToHold(int num_tokens, int page_size, int num_classes) {
  const int64_t round = int64_t{kTileTokens} * num_classes;  // tokens: a tile of each class
  return CeilDiv(num_tokens, round) * (round / page_size);
}

int PageGeometry::MaxPagesOfOneSequence() const {
  const int per_tile = kTileTokens / page_size_;
  int most = num_pages_;
  for (int c = 0; c < num_classes_; ++c) {
    const int tiles = ClassCapacity(c) / per_tile, rest = ClassCapacity(c) % per_tile;
    most = std::min(most,
                    (tiles * num_classes_ + c) * per_tile + rest);  // then class c has no page for the next
  }
  return most;
}

}  // namespace sessa
