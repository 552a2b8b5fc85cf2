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
  bool rounds = false;          // activations to bf16, where they meet bf16 weights or state
  bool rotates = false;         // int8 weights (kernels/cpu/int8_tiles.h)
};
inline void PrintTo(const TestDevice& device, std::ostream* out) { *out << device.name; }

std::vector<TestDevice> TestDevices();

// The CPU's tile unit, or where there is none its model, which is slow.
inline TestDevice CpuTiles(const std::string& name, bool bf16_activations) {
  const bool has_unit = CpuHasAmx();
  const CpuOptions options{.num_threads = 2,
                           .activation_dtype = bf16_activations ? DType::kBF16 : DType::kF32,
                           .matrix_unit = has_unit ? MatrixUnit::kAmx : MatrixUnit::kAmxModel};
  return {.name = name,
          .make = [options] { return MakeCpuBackend(options); },
          .large = has_unit,
          .impulse_tokens = has_unit ? 20000 : 1500,
          .rounds = bf16_activations,
          .rotates = true};
}

}  // namespace sessa
