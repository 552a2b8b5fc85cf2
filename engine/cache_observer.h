// Who is told what the prefix index of the state cache holds, page by page: for routers that send a prompt
// where its beginning is. PagePool calls it on the engine's thread within a step, so it must not block.
#pragma once

#include <cstdint>
#include <string_view>

#include "absl/types/span.h"

namespace sessa {

class CacheObserver {
 public:
  virtual ~CacheObserver() = default;

  // The page is found from now on: the state of `tokens` [page_size], which continue those of the page
  // `parent`. -1: they begin a sequence, of prompts of this salt alone.
  virtual void OnStored(int32_t page, int32_t parent, absl::Span<const int32_t> tokens,
                        std::string_view salt) = 0;
  // It is not any more; pages that continue it are told of too, after it.
  virtual void OnRemoved(int32_t page) = 0;
};

}  // namespace sessa
