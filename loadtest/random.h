// The random numbers of the work. A generator is seeded by what it is for (the run's seed and a request's
// number, ...), so that a request is the same in every run, in whatever order requests are made. SplitMix64
// (Steele, Lea, Flood 2014): its state is one word, so that thousands of generators cost nothing, and a token
// id costs about a nanosecond.
#pragma once

#include <cstdint>
#include <limits>

namespace sessa::loadtest {

// A C++ UniformRandomBitGenerator.
class Random {
 public:
  using result_type = uint64_t;

  explicit Random(uint64_t seed, uint64_t stream = 0, uint64_t substream = 0)
      : state_(Mix(Mix(Mix(seed) + stream) + substream)) {}

  static constexpr uint64_t min() { return 0; }
  static constexpr uint64_t max() { return std::numeric_limits<uint64_t>::max(); }
  uint64_t operator()() { return Mix(state_ += kStep); }

  // Uniform in [0, 1).
  double Uniform() { return static_cast<double>((*this)() >> 11) * 0x1p-53; }
  // Uniform in [low, high]. Requires: low <= high. Its bias is below range / 2^64.
  int64_t Between(int64_t low, int64_t high) {
    const auto range = static_cast<unsigned __int128>(high - low) + 1;
    return low + static_cast<int64_t>((range * (*this)()) >> 64);
  }

 private:
  static constexpr uint64_t kStep = 0x9e3779b97f4a7c15;
  static uint64_t Mix(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  uint64_t state_;
};

}  // namespace sessa::loadtest
