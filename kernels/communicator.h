// A rank's place in its tensor-parallel group. All ranks call the same methods in the same order; each call
// is collective.
#pragma once

#include <barrier>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/tensor.h"

namespace sessa {

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  // Not OK once a peer or the way to it is lost: what later calls leave behind is then undefined.
  // Thread-safe.
  virtual absl::Status status() const { return absl::OkStatus(); }
  // Rank r has filled the columns [bounds[r], bounds[r + 1]) of its `x`; afterwards every rank has all
  // columns.
  virtual void AllGatherColumns(Matrix x, absl::Span<const int> bounds) = 0;
  // Segment i of `data` was filled by the rank owners[i]; afterwards every rank has all segments.
  struct Segment {
    int64_t begin, end;  // floats
    int owner;
  };
  virtual void AllGatherSegments(float* data, absl::Span<const Segment> segments) = 0;
};

// One communicator for each of `size` threads of this process, joined by memory and a barrier.
std::vector<std::unique_ptr<Communicator>> MakeThreadCommunicators(int size);

class Backend;
// The same for backends whose memory only they can reach, by CopyOut and CopyIn: ranks that share a GPU, say.
// The backends outlive the communicators.
std::vector<std::unique_ptr<Communicator>> MakeHostCommunicators(absl::Span<Backend* const> backends);

}  // namespace sessa
