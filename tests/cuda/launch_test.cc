// Launches over a CUDA runtime that is made up here: what a kernel is allowed only grows, whoever asks; what
// is refused is named; the switches.
#include "kernels/cuda/launch.h"

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "kernels/cuda/runtime.h"
#include "tests/cuda/switches.h"

namespace {

struct FakeRuntime {
  int device = 0;
  std::vector<std::pair<cudaFuncAttribute, int>> attributes;  // that were set, in order
  std::map<std::pair<int, const void*>, int> allowed;
  int num_launches = 0, num_attributes = 0;  // of the last launch
  cudaError_t attribute_error = cudaSuccess;
  const char* name = "_ZN5sessa4cuda12_GLOBAL__N_16KernelILi3EEEvNS0_4ArgsE";
};
FakeRuntime runtime;

}  // namespace

extern "C" {
cudaError_t cudaGetDevice(int* device) { return *device = runtime.device, cudaSuccess; }
cudaError_t cudaFuncGetName(const char** name, const void*) { return *name = runtime.name, cudaSuccess; }
const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorInvalidValue ? "invalid argument" : "another error";
}
cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  if (runtime.attribute_error != cudaSuccess) return runtime.attribute_error;
  runtime.attributes.emplace_back(attribute, value);
  if (attribute == cudaFuncAttributeMaxDynamicSharedMemorySize)
    runtime.allowed[{runtime.device, kernel}] = value;
  return cudaSuccess;
}
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* config, const void* kernel, void**) {
  const auto found = runtime.allowed.find({runtime.device, kernel});
  const size_t allowed = found == runtime.allowed.end() ? 48 << 10 : found->second;
  if (config->dynamicSmemBytes > allowed) return cudaErrorInvalidValue;
  ++runtime.num_launches;
  runtime.num_attributes = static_cast<int>(config->numAttrs);
  return cudaSuccess;
}
}

namespace sessa::cuda {
namespace {

constexpr auto kMaxShared = cudaFuncAttributeMaxDynamicSharedMemorySize;
constexpr auto kCarveout = cudaFuncAttributePreferredSharedMemoryCarveout;

class LaunchTest : public testing::Test {
 protected:
  LaunchTest() {
    runtime = {};
    launch_switches() = {};
  }
  // What is allowed to a kernel lasts as long as the process: each test has kernels of its own.
  void Start(const void* kernel, size_t shared_bytes) {
    StartKernel(nullptr, dim3(2, 3, 4), 128, shared_bytes, kernel, nullptr);
  }
};

TEST_F(LaunchTest, WhatAKernelMayTakeOnlyGrows) {
  static const char one = 0, other = 0;
  Start(&one, 48 << 10);  // needs no leave
  EXPECT_TRUE(runtime.attributes.empty());
  Start(&one, 100 << 10);
  Start(&one, 64 << 10);  // as a second backend with a smaller model would
  Start(&one, 100 << 10);
  Start(&other, 64 << 10);
  Start(&one, 200 << 10);
  const std::vector<std::pair<cudaFuncAttribute, int>> expected = {{kMaxShared, 100 << 10},
                                                                   {kCarveout, 100},
                                                                   {kMaxShared, 64 << 10},
                                                                   {kCarveout, 100},
                                                                   {kMaxShared, 200 << 10}};
  EXPECT_EQ(runtime.attributes, expected);
  EXPECT_EQ(runtime.num_launches, 6);
  EXPECT_EQ(TakeLaunchFailure(), "");
}

TEST_F(LaunchTest, EachDeviceHasItsOwn) {
  static const char kernel = 0;
  Start(&kernel, 100 << 10);
  runtime.device = 1;
  Start(&kernel, 64 << 10);
  EXPECT_EQ(runtime.num_launches, 2);
  EXPECT_EQ(runtime.attributes.size(), 4);
}

TEST_F(LaunchTest, OverlapIsOfAThread) {
  const WithoutOverlap without;
  EXPECT_FALSE(LaunchesOverlap());
  std::thread([] { EXPECT_TRUE(LaunchesOverlap()); }).join();
}

TEST_F(LaunchTest, WhatIsRefusedIsNamed) {
  static const char kernel = 0;
  runtime.attribute_error = cudaErrorInvalidValue;
  Start(&kernel, 300 << 10);
  runtime.attribute_error = cudaSuccess;
  runtime.name = "plain_name";
  Start(&kernel, 0);
  EXPECT_EQ(TakeLaunchFailure(),
            "Kernel<3>(Args), grid 2 x 3 x 4, 128 threads, 307200 bytes of shared memory: invalid argument");
  EXPECT_EQ(TakeLaunchFailure(), "") << "once";
  EXPECT_EQ(runtime.num_launches, 1);
  NoteLaunchFailure("first"), NoteLaunchFailure("second");
  EXPECT_EQ(TakeLaunchFailure(), "first");
}

TEST_F(LaunchTest, SwitchesAreParsed) {
  LaunchSwitches switches;
  EXPECT_TRUE(ParseCudaSwitches("", &switches));
  EXPECT_TRUE(switches.overlap && switches.graphs && !switches.trace);
  EXPECT_TRUE(ParseCudaSwitches("no_overlap,no_graphs,carveout=all,trace", &switches));
  EXPECT_TRUE(!switches.overlap && !switches.graphs && switches.trace);
  EXPECT_EQ(switches.carveout, Carveout::kAll);
  for (const char* bad : {"overlap", "no_overlap no_graphs", "carveout=", "carveout=50"})
    EXPECT_FALSE(ParseCudaSwitches(bad, &switches)) << bad;
}

TEST_F(LaunchTest, Switches) {
  static const char small = 0, large = 0;
  Start(&small, 0);
  EXPECT_EQ(runtime.num_attributes, 1) << "launches overlap";
  {
    const WithoutOverlap without;
    Start(&small, 0);
    EXPECT_EQ(runtime.num_attributes, 0);
  }
  launch_switches() = {.overlap = false, .carveout = Carveout::kDriver};
  Start(&large, 64 << 10);
  EXPECT_EQ(runtime.num_attributes, 0);
  EXPECT_EQ(runtime.attributes, (std::vector<std::pair<cudaFuncAttribute, int>>{{kMaxShared, 64 << 10}}));
  launch_switches() = {.carveout = Carveout::kAll, .trace = true};
  runtime.attributes.clear();
  testing::internal::CaptureStderr();
  Start(&small, 1 << 10), Start(&small, 1 << 10);
  EXPECT_EQ(runtime.attributes, (std::vector<std::pair<cudaFuncAttribute, int>>{{kCarveout, 100}}));
  EXPECT_NE(testing::internal::GetCapturedStderr().find(
                "launch: Kernel<3>(Args), grid 2 x 3 x 4, 128 threads, 1024 bytes"),
            std::string::npos);
}

}  // namespace
}  // namespace sessa::cuda
