// Mamba-2's convolution and scan on a GPU: see kernels/scan.h. Not thread-safe; owned by a CudaBackend.
#pragma once

#include "kernels/cuda/context.h"
#include "kernels/cuda/step.h"
#include "kernels/cuda/step_queue.h"
#include "kernels/scan.h"

namespace sessa::cuda {

class StateScan final : public ScanOps {
 public:
  // What is pointed to must outlive this.
  StateScan(Context* context, DeviceStep* step, StepQueue* queue)
      : context_(context), step_(step), queue_(queue) {}

  // State sizes beyond kMaxScanStates have no kernel: UNIMPLEMENTED at the next Synchronize.
  void Scan(const ScanCall& call) override;

 private:
  Context* const context_;
  DeviceStep* const step_;
  StepQueue* const queue_;
};

}  // namespace sessa::cuda
