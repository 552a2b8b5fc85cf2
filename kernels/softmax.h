// Vector loops over a row of logits, for the sampler; the best instruction set is chosen at run time.
#pragma once

#include <cstdint>

#include "absl/types/span.h"

namespace sessa {

// Replaces NaN by -infinity and +infinity by the largest float; returns the largest value, -infinity of none.
float CleanAndMax(absl::Span<float> x);

// The index of the largest value, the lowest of equals; +infinity counts as the largest float, NaN and
// -infinity are never it, -1 of nothing else.
int32_t ArgMax(absl::Span<const float> x);

// y[i] = exp((x[i] - shift) * scale) for x[i] <= shift, about 1e-7 relative; exactly 0 below exp(-104) and
// for -infinity.
void ExpDifference(absl::Span<const float> x, float shift, float scale, float* y);

// In double and in one order.
double Sum(absl::Span<const float> x);

}  // namespace sessa
