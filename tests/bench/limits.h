// What this machine can do now, measured beside each benchmark: the rate of a shared machine drifts by a
// factor of two within minutes, so a fraction counts only against a limit measured right before and right
// after.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cpu/thread_pool.h"

namespace sessa {

struct MachineLimits {
  double read_bytes = 0;  // a second, reading 256 MiB on huge pages with all threads
  double fma_flops = 0;   // a second, float32 fused multiply-adds with all threads, two FLOPs each
  double gemm_flops = 0;  // a second, [512, 1024] x [1024, 1024], bf16 weights, our own Linear
  double amx_flops =
      0;  // a second, bf16 tile products with k = 1024 of 32 rows by 1 MiB in L2, of random values; 0: no AMX
};

class LimitMeter {
 public:
  explicit LimitMeter(int num_threads);

  // The medians of a few passes, each over some 10 ms. About a fifth of a second.
  MachineLimits Measure();

 private:
  const int num_threads_;
  ThreadPool pool_;
  std::unique_ptr<Backend> backend_;
  Buffer data_;
  LinearWeights weights_;
  std::vector<float> x_, y_;
  std::vector<uint16_t> tiles_;  // of all threads
};

}  // namespace sessa
