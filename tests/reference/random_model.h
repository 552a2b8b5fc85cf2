// A model with random weights in memory, for tests that need other sizes than the published ones.
#pragma once

#include <cstdint>
#include <memory>

#include "engine/config.h"
#include "engine/weights.h"

namespace sessa {

// Every tensor that the config asks for, as `dtype` (kF32 or kBF16); the same seed gives the same values in
// both, those of kF32 being exact in bf16 too. Activations stay near 1. Requires: config.Validate() is OK.
std::unique_ptr<WeightSource> RandomModel(const ModelConfig& config, uint64_t seed,
                                          DType dtype = DType::kF32);

}  // namespace sessa
