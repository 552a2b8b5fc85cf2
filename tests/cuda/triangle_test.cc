// The inverse of a block's triangle (kernels/cuda/triangle.cuh) on the emulator, against double precision.
#include "kernels/cuda/triangle.cuh"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <memory>
#include <random>

namespace sessa::cuda {
namespace {

struct Shared {
  TriangleMatrix b, x;
  MergeScratch scratch;
};

void InvertKernel(const float* b, float* x) {
  auto& shared = *static_cast<Shared*>(DynamicShared());
  for (int i = threadIdx.x; i < kTriangleRows * kTriangleRows; i += kThreads) {
    const int r = i / kTriangleRows, c = i % kTriangleRows;
    shared.b[r][c] = c < r ? b[i] : NAN;
  }
  __syncthreads();
  InvertTriangle(shared.b, shared.x, shared.scratch);
  for (int i = threadIdx.x; i < kTriangleRows * kTriangleRows; i += kThreads)
    x[i] = shared.x[i / kTriangleRows][i % kTriangleRows];
}

constexpr int N = kTriangleRows;

// Column by column, in double precision.
std::vector<double> Inverse(const std::vector<float>& b) {
  std::vector<double> x(N * N);
  for (int c = 0; c < N; ++c) {
    for (int r = c; r < N; ++r) {
      x[r * N + c] = r == c;
      for (int k = c; k < r; ++k) x[r * N + c] += double{b[r * N + k]} * x[k * N + c];
    }
  }
  return x;
}

class TriangleTest : public testing::Test {
 protected:
  // Rows of B are gamma(t) times weights that sum to one; those from num_rows on are zero.
  void ExpectInverse(int num_rows, const std::function<float(int t)>& gamma,
                     const std::function<double(int t, int j)>& weight) {
    std::vector<float> b(N * N), x(N * N);
    for (int t = 1; t < num_rows; ++t) {
      double sum = 0;
      for (int j = 0; j < t; ++j) sum += weight(t, j);
      for (int j = 0; j < t; ++j) b[t * N + j] = static_cast<float>(gamma(t) * weight(t, j) / sum);
    }
    for (int order = 0; order < 2; ++order) {  // of the emulator's threads
      Launch(nullptr, dim3(1), kThreads, sizeof(Shared), InvertKernel, b.data(), x.data());
      const std::vector<double> expected = Inverse(b);
      for (int i = 0; i < N * N; ++i) {
        ASSERT_LE(std::abs(expected[i]), 1 + 1e-6);
        ASSERT_NEAR(x[i], expected[i], 1e-6) << num_rows << " rows, row " << i / N << " column " << i % N;
      }
    }
  }

  std::mt19937 random_{3};
};

TEST_F(TriangleTest, RandomAttention) {
  std::normal_distribution<double> normal;
  for (int n : {1, 2, 15, 16, 17, 31, 32, 33, 48, 49, 63, 64}) {
    std::vector<float> gammas(n);
    for (float& g : gammas) g = 0.999f * static_cast<float>(std::tanh(2 * normal(random_)));
    std::vector<double> scores(N * N);
    for (double& x : scores) x = 3 * normal(random_);
    ExpectInverse(
        n, [&](int t) { return gammas[t]; }, [&](int t, int j) { return std::exp(scores[t * N + j]); });
  }
}

// Nothing fades: each token repeats the one before it, or all before it, with either sign.
TEST_F(TriangleTest, TheWorstCases) {
  for (float gamma : {0.999f, -0.999f}) {
    const auto constant = [=](int) { return gamma; };
    const auto alternating = [=](int t) { return t % 2 == 0 ? gamma : -gamma; };
    const auto before = [](int t, int j) { return j == t - 1 ? 1.0 : 0.0; };
    const auto uniform = [](int, int) { return 1.0; };
    const auto first = [](int, int j) { return j == 0 ? 1.0 : 1e-3; };
    ExpectInverse(64, constant, before);
    ExpectInverse(64, constant, uniform);
    ExpectInverse(64, constant, first);
    ExpectInverse(64, alternating, before);
    ExpectInverse(64, alternating, uniform);
  }
}

}  // namespace
}  // namespace sessa::cuda
