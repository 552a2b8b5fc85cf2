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
  // A rank's own copy of a matrix, of which it has filled the columns [bounds[rank()], bounds[rank() + 1]).
  struct Columns {
    Matrix x;
    absl::Span<const int> bounds;
  };
  // Afterwards every rank has all columns of each part. Several at once cost little more than one.
  virtual void AllGather(absl::Span<const Columns> parts) = 0;
};

// One communicator for each of `size` threads of this process, joined by memory and a barrier.
std::vector<std::unique_ptr<Communicator>> MakeThreadCommunicators(int size);

class Backend;
// The same for backends whose memory only they can reach, by CopyOut and CopyIn: ranks that share a GPU, say.
// The backends outlive the communicators.
std::vector<std::unique_ptr<Communicator>> MakeHostCommunicators(absl::Span<Backend* const> backends);

}  // namespace sessa
