#include "tests/bench/cuda/table.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace sessa {
namespace {

struct Rates {
  double seconds, bytes, flops, of_copy, of_gemm;
};
Rates RatesOf(const Measurement& m, const DeviceLimits& limits) {
  const double seconds = Median(m.seconds), bytes = m.work.bytes / seconds, flops = m.work.flops / seconds;
  return {seconds, bytes, flops, limits.copy_bytes > 0 ? bytes / limits.copy_bytes : 0,
          limits.gemm_flops > 0 ? flops / limits.gemm_flops : 0};
}

std::string TextOf(const Target& target) {
  switch (target.kind) {
    case Target::kNone: return "";
    case Target::kShareOfCopy: return absl::StrFormat("%.0f%% of copy", 100 * target.value);
    case Target::kShareOfGemm: return absl::StrFormat("%.0f%% of GEMM", 100 * target.value);
    case Target::kTflops: return absl::StrFormat("%.0f TFLOP/s", target.value);
    case Target::kMicroseconds: return absl::StrFormat("%.1f us", target.value);
  }
  return "";
}

// Empty without a target.
const char* VerdictOf(const Measurement& m, const DeviceLimits& limits) {
  if (IsImpossible(m, limits)) return "IMPOSSIBLE";
  if (m.target.kind == Target::kNone) return "";
  return MeetsTarget(m, limits) ? "met" : "missed";
}

}  // namespace

double Median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return (v[(v.size() - 1) / 2] + v[v.size() / 2]) / 2;
}

double Spread(const std::vector<double>& v) {
  const auto [low, high] = std::minmax_element(v.begin(), v.end());
  return (*high - *low) / 2 / Median(v);
}

bool MeetsTarget(const Measurement& m, const DeviceLimits& limits) {
  const Rates r = RatesOf(m, limits);
  switch (m.target.kind) {
    case Target::kNone: return true;
    case Target::kShareOfCopy: return r.of_copy >= m.target.value;
    case Target::kShareOfGemm: return r.of_gemm >= m.target.value;
    case Target::kTflops: return r.flops * 1e-12 >= m.target.value;
    case Target::kMicroseconds: return r.seconds * 1e6 <= m.target.value;
  }
  return false;
}

bool IsImpossible(const Measurement& m, const DeviceLimits& limits) {
  constexpr double kTolerance = 1.15;  // reads alone may be a little faster than a copy
  const Rates r = RatesOf(m, limits);
  return r.of_copy > kTolerance || r.of_gemm > kTolerance;
}

std::string TableHeader() {
  return absl::StrFormat("%-44s %12s %7s %8s %8s %8s %8s  %s", "benchmark", "median us", "spread", "GB/s",
                         "of_copy", "TFLOP/s", "of_gemm", "target");
}

std::string TableLine(const Measurement& m, const DeviceLimits& limits) {
  const Rates r = RatesOf(m, limits);
  std::string line = absl::StrFormat("%-44s %12.1f %6.1f%% %8.0f %7.1f%% %8.2f %7.1f%%", m.name,
                                     r.seconds * 1e6, 100 * Spread(m.seconds), r.bytes * 1e-9,
                                     100 * r.of_copy, r.flops * 1e-12, 100 * r.of_gemm);
  if (m.target.kind != Target::kNone) absl::StrAppend(&line, "  ", TextOf(m.target), ":");
  if (const std::string verdict = VerdictOf(m, limits); !verdict.empty())
    absl::StrAppend(&line, m.target.kind == Target::kNone ? "  " : " ", verdict);
  if (!m.note.empty()) absl::StrAppend(&line, "  (", m.note, ")");
  return line;
}

std::string CsvHeader() {
  return "benchmark,median_us,spread,gb_per_s,of_copy,tflop_per_s,of_gemm,target,met";
}

std::string CsvLine(const Measurement& m, const DeviceLimits& limits) {
  const Rates r = RatesOf(m, limits);
  return absl::StrFormat("%s,%.3f,%.4f,%.3f,%.4f,%.4f,%.4f,%s,%s", m.name, r.seconds * 1e6, Spread(m.seconds),
                         r.bytes * 1e-9, r.of_copy, r.flops * 1e-12, r.of_gemm, TextOf(m.target),
                         VerdictOf(m, limits));
}

}  // namespace sessa
