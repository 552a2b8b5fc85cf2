// The backends that the conformance suite runs on. Which ones a test program has is the choice of the file
// that it links: emulated_devices.cc everywhere, cuda_devices.cc where there is a GPU.
#pragma once

#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/backend.h"

namespace sessa {

struct TestDevice {
  std::string name;
  std::function<absl::StatusOr<std::unique_ptr<Backend>>()> make;
  bool large = true;            // fast enough for large shapes
  int impulse_tokens = 100000;  // of the power law
  bool batch_invariant = true;  // also where many rows share a linear
};
inline void PrintTo(const TestDevice& device, std::ostream* out) { *out << device.name; }

std::vector<TestDevice> TestDevices();

}  // namespace sessa
