// What the emulated device did since one was made.
#pragma once

#include "tests/cuda/emulator.h"

namespace sessa {

class Graphs {
 public:
  int captures() const { return emulator::counts().captures - before_.captures; }
  int launches() const { return emulator::counts().graph_launches - before_.graph_launches; }
  int kernels() const { return emulator::counts().kernels - before_.kernels; }

 private:
  const emulator::Counts before_ = emulator::counts();
};

}  // namespace sessa
