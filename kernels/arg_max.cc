#include "kernels/backend.h"
#include "kernels/softmax.h"

namespace sessa {

void Backend::ArgMax(Matrix x, int32_t* best) {
  for (int r = 0; r < x.rows; ++r) best[r] = sessa::ArgMax({x.row(r), static_cast<size_t>(x.cols)});
}

}  // namespace sessa
