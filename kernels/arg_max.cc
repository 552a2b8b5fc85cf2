#include <cstdint>
#include <limits>

#include "kernels/backend.h"

namespace sessa {

void Backend::ArgMax(Matrix x, int32_t* best) {
  constexpr int kLanes = 16;  // maxima side by side, so that the loop can be vectorized
  for (int r = 0; r < x.rows; ++r) {
    const float* row = x.row(r);
    float max[kLanes];
    for (float& m : max) m = -std::numeric_limits<float>::infinity();
    int i = 0;
    for (; i + kLanes <= x.cols; i += kLanes) {
      for (int lane = 0; lane < kLanes; ++lane)
        max[lane] = row[i + lane] > max[lane] ? row[i + lane] : max[lane];
    }
    for (; i < x.cols; ++i) max[0] = row[i] > max[0] ? row[i] : max[0];
    for (float m : max) max[0] = m > max[0] ? m : max[0];
    best[r] = -1;
    if (max[0] == -std::numeric_limits<float>::infinity()) continue;
    for (best[r] = 0; row[best[r]] != max[0];) ++best[r];
  }
}

}  // namespace sessa
