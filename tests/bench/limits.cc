#include "tests/bench/limits.h"

#include <algorithm>
#include <cstdint>
#include <random>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "kernels/convert.h"
#include "kernels/cpu/tile_unit.h"
#include "kernels/cpu/tiles.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tests/bench/limits.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace sessa {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Eight independent sums: enough loads in flight for one core.
float ReadAll(const float* data, int64_t n) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  auto s0 = hn::Zero(d), s1 = s0, s2 = s0, s3 = s0, s4 = s0, s5 = s0, s6 = s0, s7 = s0;
  for (int64_t i = 0; i + 8 * lanes <= n; i += 8 * lanes) {
    s0 = hn::Add(s0, hn::Load(d, data + i)), s1 = hn::Add(s1, hn::Load(d, data + i + lanes));
    s2 = hn::Add(s2, hn::Load(d, data + i + 2 * lanes)), s3 = hn::Add(s3, hn::Load(d, data + i + 3 * lanes));
    s4 = hn::Add(s4, hn::Load(d, data + i + 4 * lanes)), s5 = hn::Add(s5, hn::Load(d, data + i + 5 * lanes));
    s6 = hn::Add(s6, hn::Load(d, data + i + 6 * lanes)), s7 = hn::Add(s7, hn::Load(d, data + i + 7 * lanes));
  }
  s0 = hn::Add(hn::Add(hn::Add(s0, s1), hn::Add(s2, s3)), hn::Add(hn::Add(s4, s5), hn::Add(s6, s7)));
  return hn::GetLane(hn::SumOfLanes(d, s0));
}

// Twelve chains: latency 4 x two ports, and some to spare. Returns the FLOPs.
double RunFma(int64_t iterations, float* sink) {
  const hn::ScalableTag<float> d;
  const auto a = hn::Set(d, 1.0f - 1e-7f), b = hn::Set(d, 1e-7f);
  const auto start = [&d](float x) {
    return hn::Set(d, x);
  };  // all different: equal chains would be merged into one
  auto c0 = start(1), c1 = start(2), c2 = start(3), c3 = start(4), c4 = start(5), c5 = start(6),
       c6 = start(7);
  auto c7 = start(8), c8 = start(9), c9 = start(10), c10 = start(11), c11 = start(12);
  for (int64_t i = 0; i < iterations; ++i) {
    c0 = hn::MulAdd(c0, a, b), c1 = hn::MulAdd(c1, a, b), c2 = hn::MulAdd(c2, a, b),
    c3 = hn::MulAdd(c3, a, b);
    c4 = hn::MulAdd(c4, a, b), c5 = hn::MulAdd(c5, a, b), c6 = hn::MulAdd(c6, a, b),
    c7 = hn::MulAdd(c7, a, b);
    c8 = hn::MulAdd(c8, a, b), c9 = hn::MulAdd(c9, a, b), c10 = hn::MulAdd(c10, a, b),
    c11 = hn::MulAdd(c11, a, b);
  }
  const auto sum =
      hn::Add(hn::Add(hn::Add(hn::Add(c0, c1), hn::Add(c2, c3)), hn::Add(hn::Add(c4, c5), hn::Add(c6, c7))),
              hn::Add(hn::Add(c8, c9), hn::Add(c10, c11)));
  *sink = hn::GetLane(hn::SumOfLanes(d, sum));
  return 2.0 * 12 * static_cast<double>(hn::Lanes(d)) * static_cast<double>(iterations);
}

}  // namespace HWY_NAMESPACE
}  // namespace sessa
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sessa {
namespace {

HWY_EXPORT(ReadAll);
HWY_EXPORT(RunFma);

// The median rate of `passes` runs of `body`, each of which does `work`.
template <class Body>
double MedianRate(int passes, double work, Body body) {
  std::vector<double> rates;
  for (int i = 0; i < passes; ++i) {
    const absl::Time begin = absl::Now();
    body();
    rates.push_back(work / absl::ToDoubleSeconds(absl::Now() - begin));
  }
  std::nth_element(rates.begin(), rates.begin() + passes / 2, rates.end());
  return rates[passes / 2];
}

}  // namespace

#if defined(__x86_64__)
constexpr int kAmxPanels = 32, kAmxPanel = 1024 * 16;  // bf16 values of a panel: 1 MiB in all
// Of a thread: two row tiles, the panels, and a tile of sums.
constexpr int kAmxRows = 2 * 16 * 1024, kAmxSums = 512,
              kAmxShare = kAmxRows + kAmxPanels * kAmxPanel + kAmxSums;

// Two by two tiles of sums, all of k in registers, as the best of kernels would. Returns the FLOPs.
double RunAmx(int64_t iterations, const uint16_t* a, const uint16_t* b, float* sums) {
  using cpu::Amx;
  constexpr int kValues = cpu::kTileValues, kRowTile = 1024 * 16;
  Amx::Begin(cpu::kTileRows);
  for (int64_t i = 0; i < iterations; ++i) {
    for (int p = 0; p < kAmxPanels; p += 2) {
      Amx::Zero<0>(), Amx::Zero<1>(), Amx::Zero<2>(), Amx::Zero<3>();
      const uint16_t* panel = b + p * kAmxPanel;
      for (int k = 0; k < kRowTile; k += kValues) {
        Amx::Load<6>(panel + k, 64), Amx::Load<4>(a + k, 64), Amx::DotBf16<0, 4, 6>();
        Amx::Load<7>(panel + kAmxPanel + k, 64), Amx::DotBf16<1, 4, 7>();
        Amx::Load<5>(a + kRowTile + k, 64), Amx::DotBf16<2, 5, 6>(), Amx::DotBf16<3, 5, 7>();
      }
      Amx::Store<0>(sums, 64), Amx::Store<1>(sums, 64), Amx::Store<2>(sums, 64), Amx::Store<3>(sums, 64);
    }
  }
  Amx::End();
  return 2.0 * 32 * kAmxPanels * kAmxPanel * static_cast<double>(iterations);
}
#endif

constexpr int64_t kFloats = int64_t{64} << 20;
constexpr int kRows = 512, kWidth = 1024;

LimitMeter::LimitMeter(int num_threads)
    : num_threads_(num_threads),
      pool_(num_threads),
      backend_(MakeCpuBackend({.num_threads = num_threads})),
      data_(*backend_->Allocate(kFloats * 4)),
      x_(kRows * kWidth, 0.5f),
      y_(kRows * kWidth) {
  std::fill_n(data_.floats(), kFloats, 1.0f);  // pages that nobody wrote would all be the same one
  weights_ = *backend_->MakeLinear({DType::kF32, {kWidth, kWidth}, data_.data()}, nullptr, DType::kBF16);
#if defined(__x86_64__)
  // Values such as weights have: zeros take less power, and were seen to go by 1.2 times as fast.
  if (!CpuHasAmx()) return;
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  tiles_.resize(num_threads * kAmxShare + 32);
  for (uint16_t& x : tiles_) x = RoundToBf16(normal(random));
#endif
}

MachineLimits LimitMeter::Measure() {
  constexpr int64_t kIterations = 1'000'000;
  std::vector<float> sinks(num_threads_ * 16);
  MachineLimits limits;
  limits.read_bytes = MedianRate(5, kFloats * 4.0, [&] {
    pool_.ParallelFor(num_threads_, [&](int item, int) {
      const int64_t share = kFloats / num_threads_ / 1024 * 1024;
      sinks[item * 16] = HWY_DYNAMIC_DISPATCH(ReadAll)(data_.floats() + item * share, share);
    });
  });
  const double flops = HWY_DYNAMIC_DISPATCH(RunFma)(kIterations, sinks.data());
  limits.fma_flops = MedianRate(5, flops * num_threads_, [&] {
    pool_.ParallelFor(num_threads_, [&](int item, int) {
      HWY_DYNAMIC_DISPATCH(RunFma)(kIterations, &sinks[item * 16]);
    });
  });
  limits.gemm_flops = MedianRate(7, 2.0 * kRows * kWidth * kWidth, [&] {
    const LinearCall call{&weights_, {y_.data(), kRows, kWidth, kWidth}};
    backend_->Linear({x_.data(), kRows, kWidth, kWidth}, {}, {&call, 1});
  });
#if defined(__x86_64__)
  if (CpuHasAmx()) {
    uint16_t* first = tiles_.data() + (64 - reinterpret_cast<uintptr_t>(tiles_.data()) % 64) / 2;
    const auto run = [&](int item) {
      uint16_t* a = first + item * kAmxShare;
      return RunAmx(8, a, a + kAmxRows, reinterpret_cast<float*>(a + kAmxShare - kAmxSums));
    };
    const double work = run(0) * num_threads_;
    limits.amx_flops =
        MedianRate(5, work, [&] { pool_.ParallelFor(num_threads_, [&](int item, int) { run(item); }); });
  }
#endif
  return limits;
}

}  // namespace sessa
#endif  // HWY_ONCE
