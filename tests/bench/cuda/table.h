// The table of the CUDA benchmarks: a line for each, with the rates it reached, their share of what the
// device can do (measured in the same run) and the target. Pure: tested without a GPU.
#pragma once

#include <string>
#include <vector>

#include "tests/bench/cuda/work.h"

namespace sessa {

struct DeviceLimits {
  double copy_bytes = 0;  // a second, read and written, by a large copy on the device
  double gemm_flops = 0;  // a second, of a large bf16 product by the library
};

struct Target {
  enum Kind { kNone, kShareOfCopy, kShareOfGemm, kTflops, kMicroseconds } kind = kNone;
  double value = 0;
};

struct Measurement {
  std::string name;
  std::vector<double> seconds;  // of one run, a value for each sample; not empty
  Work work;
  Target target;
  std::string note = {};  // how it ran
};

double Median(std::vector<double> values);
// Half of largest minus smallest, as a share of the median.
double Spread(const std::vector<double>& values);
bool MeetsTarget(const Measurement& m, const DeviceLimits& limits);  // true without one
// Faster than the device can be: the clock missed work, or a cache served what memory should have.
bool IsImpossible(const Measurement& m, const DeviceLimits& limits);

std::string TableHeader();
std::string TableLine(const Measurement& m, const DeviceLimits& limits);
std::string CsvHeader();
std::string CsvLine(const Measurement& m, const DeviceLimits& limits);

}  // namespace sessa
