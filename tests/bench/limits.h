// What this machine can do now, measured: every benchmark reports its rate as a fraction of one of these.
#pragma once

namespace sessa {

struct MachineLimits {
  double read_bytes = 0;  // a second, reading 512 MiB with all threads
  double fma_flops = 0;   // a second, float32 fused multiply-adds with all threads, two FLOPs each
};

// Takes about two seconds. The median of several passes.
MachineLimits MeasureLimits(int num_threads);

}  // namespace sessa
