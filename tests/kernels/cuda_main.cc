// main of cuda_conformance_test: gtest's, with the switches of launches.
#include <gtest/gtest.h>

#include "tests/cuda/switches.h"

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  sessa::ApplyCudaSwitches();
  return RUN_ALL_TESTS();
}
