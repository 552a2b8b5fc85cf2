// Ranks whose devices fail, or seem to work beside their host, when a test says so. A program that links
// fault_injection.cc gets these from MakeRanks, which takes the place of kernels/device.cc: the engine above
// is the real one, and so are the kernels below.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "engine/mutex.h"

namespace sessa {

// The faults of all ranks of the process. Thread-safe.
class Faults {
 public:
  static Faults& Get();
  void Clear();

  // The allocation after `count` more fails; -1: none.
  void FailAllocation(int64_t count);
  int64_t num_allocations() const { return num_allocations_; }  // since Clear

  // `at_sync(rank)` runs in each rank's Synchronize, once a step and rank; it may block. An error is sticky,
  // as the devices' own are.
  void SetAtSync(std::function<absl::Status(int rank)> at_sync);
  // `at_sample()`: true when the first row drawn in that step has logits that are not numbers.
  void SetAtSample(std::function<bool()> at_sample);

  // Devices that are made from here on say that they compute beside the host, though each call does its work.
  void SetAsynchronous(bool on) { asynchronous_ = on; }
  bool is_asynchronous() const { return asynchronous_; }
  // Steps that ended (Backend::EndStep) before the one before was waited for, since Clear.
  int num_steps_ahead() const { return num_steps_ahead_; }

  void OnStepAhead() { ++num_steps_ahead_; }  // called by the devices, as all below
  absl::Status OnAllocation(size_t bytes);
  absl::Status OnSync(int rank);
  bool OnSample();

 private:
  Mutex mutex_;
  int64_t allocations_left_ ABSL_GUARDED_BY(mutex_) = -1;
  std::function<absl::Status(int)> at_sync_ ABSL_GUARDED_BY(mutex_);
  std::function<bool()> at_sample_ ABSL_GUARDED_BY(mutex_);
  std::atomic<int64_t> num_allocations_{0};
  std::atomic<bool> asynchronous_{false};
  std::atomic<int> num_steps_ahead_{0};
};

}  // namespace sessa
