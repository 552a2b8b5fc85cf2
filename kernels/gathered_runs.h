// What an AllGather moves for each rank, as runs of floats that lie together: what communicators that go
// through host memory pack and unpack by.
#pragma once

#include <cstdint>

#include "kernels/communicator.h"

namespace sessa {

// copy(x, n, at) for each run of n floats that rank r fills; in its packed part they follow one another, from
// 0. Returns the size of the part, in floats.
template <class Copy>
int64_t ForEachRun(absl::Span<const Communicator::Columns> parts, int r, const Copy& copy) {
  int64_t at = 0;
  for (const auto& [x, bounds] : parts) {
    const int64_t n = bounds[r + 1] - bounds[r];
    for (int i = 0; i < x.rows && n > 0; ++i, at += n) copy(x.row(i) + bounds[r], n, at);
  }
  return at;
}

}  // namespace sessa
