// The instruction sets that Highway chooses from, for tests of those that this machine would not choose.
#pragma once

#include <cstdint>

#include "hwy/targets.h"

namespace sessa {

// These alone while it lives, then all again.
class OnlyTargets {
 public:
  explicit OnlyTargets(int64_t targets) { Use(targets); }
  ~OnlyTargets() { Use(0); }
  OnlyTargets(const OnlyTargets&) = delete;
  OnlyTargets& operator=(const OnlyTargets&) = delete;

 private:
  static void Use(int64_t targets) {  // 0: all
    hwy::SetSupportedTargetsForTest(targets);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
};

}  // namespace sessa
