// The events that routers are sent, made of the pages that come to the prefix index and leave it. Routers
// know no page numbers: a page has a name, the first 8 bytes of SHA-256 over its tokens and the name of the
// page that they continue, or the salt of its prompts; so replicas name alike what is alike. Encoded as vLLM
// encodes its KV events (MessagePack: a batch is an array, an event a map with its type), so that what reads
// those reads these. Not thread-safe: the publisher's thread owns it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"

namespace sessa {

// What CacheObserver was told.
struct PageEvent {
  int32_t page = -1;
  int32_t parent = -1;
  bool stored = false;          // else removed; only `page` counts then
  std::vector<int32_t> tokens;  // [page_size]
  std::string salt;             // of first pages
};

class PageNames {
 public:
  // `medium`: where pages lie, "CPU" or "GPU".
  explicit PageNames(std::string medium) : medium_(std::move(medium)) {}

  // The batch's payload: [time, [event, ...]], or empty where there is nothing to tell. A run of pages that
  // continue one another is one event. `lost`: events before these were lost, so that what is known is
  // forgotten here and, by an event, at the readers; pages that continue forgotten ones are not told of.
  std::string Encode(const std::vector<PageEvent>& events, bool lost, double unix_seconds);

 private:
  uint64_t NameOf(const PageEvent& event) const;

  const std::string medium_;
  absl::flat_hash_map<int32_t, uint64_t> names_;  // of the pages that readers know
};

}  // namespace sessa
