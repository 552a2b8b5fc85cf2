#pragma once

#include "kernels/backend.h"
#include "kernels/cuda/runtime.h"

namespace sessa {

// What `backend`, which MakeCudaBackend made, enqueues on: for a communicator between GPUs.
cudaStream_t CudaStreamOf(const Backend& backend);

}  // namespace sessa
