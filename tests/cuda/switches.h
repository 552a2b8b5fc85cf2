// SESSA_CUDA_SWITCHES: what the launches of a test or benchmark program leave out, to find out what a fault
// or lost time comes from. It is the environment's, so that run.sh of the GPU bundle reaches each program
// that it starts, also through NVIDIA's tools; the server does not read it.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <string>

#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "kernels/cuda/launch.h"

namespace sessa {

// no_overlap, no_graphs, carveout=driver|large|all, trace, joined by commas. False: a switch that is none.
inline bool ParseCudaSwitches(const std::string& text, cuda::LaunchSwitches* switches) {
  for (absl::string_view name : absl::StrSplit(text, ',', absl::SkipEmpty())) {
    if (name == "no_overlap") {
      switches->overlap = false;
    } else if (name == "no_graphs") {
      switches->graphs = false;
    } else if (name == "carveout=driver") {
      switches->carveout = cuda::Carveout::kDriver;
    } else if (name == "carveout=large") {
      switches->carveout = cuda::Carveout::kLarge;
    } else if (name == "carveout=all") {
      switches->carveout = cuda::Carveout::kAll;
    } else if (name == "trace") {
      switches->trace = true;
    } else {
      return false;
    }
  }
  return true;
}

// For main, before the first backend is made. Ends the process at a switch that is none.
inline void ApplyCudaSwitches() {
  const char* text = std::getenv("SESSA_CUDA_SWITCHES");
  if (text == nullptr || ParseCudaSwitches(text, &cuda::launch_switches())) return;
  std::fprintf(stderr, "SESSA_CUDA_SWITCHES: %s has a switch that is none\n", text);
  std::exit(2);
}

}  // namespace sessa
