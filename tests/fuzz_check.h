// What a fuzz target holds to be true: a fuzzer takes the end of the process for a finding.
#pragma once

#include <cstdlib>

namespace sessa {

inline void Check(bool ok) {
  if (!ok) std::abort();
}

}  // namespace sessa
