// What the emulated device counted of captures, replays and kernels.
#pragma once

#include "tests/cuda/emulator.h"

namespace sessa {

// What happened since it was made.
class Graphs {
 public:
  int captures() const { return emulator::counts().captures - before_.captures; }
  int launches() const { return emulator::counts().graph_launches - before_.graph_launches; }
  int kernels() const { return emulator::counts().kernels - before_.kernels; }

 private:
  const emulator::Counts before_ = emulator::counts();
};

}  // namespace sessa
