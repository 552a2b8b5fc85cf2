// google-benchmark's runs as one line for each benchmark: medians over its repetitions, and the counters by
// name.
#pragma once

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdio>
#include <vector>

namespace sessa {

class TableReporter : public benchmark::BenchmarkReporter {
 public:
  bool ReportContext(const Context&) override {
    std::printf("%-44s %12s %7s", "benchmark", "median us", "spread");
    for (const char* name : kCounters) std::printf(" %8s", name);
    std::printf("\n");
    return true;
  }
  void ReportRuns(const std::vector<Run>& runs) override {
    std::vector<double> times;
    for (const Run& run : runs) {
      if (run.run_type == Run::RT_Iteration) times.push_back(run.GetAdjustedRealTime());
    }
    if (times.empty()) return;
    const double median = Median(times);
    const auto [low, high] = std::minmax_element(times.begin(), times.end());
    std::printf("%-44s %12.1f %6.1f%%", runs[0].run_name.function_name.c_str(), median,
                50 * (*high - *low) / median);
    for (const char* name : kCounters) {
      std::vector<double> values;
      for (const Run& run : runs) {
        const auto counter = run.counters.find(name);
        if (run.run_type == Run::RT_Iteration && counter != run.counters.end())
          values.push_back(counter->second);
      }
      values.empty() ? std::printf(" %8s", "") : std::printf(" %8.3g", Median(values));
    }
    std::printf("\n");
    std::fflush(stdout);
  }

 private:
  static constexpr const char* kCounters[] = {"GB/s",    "of_read", "GFLOP/s", "of_fma",
                                              "of_gemm", "of_amx",  "tokens"};
  static double Median(std::vector<double> v) {
    std::nth_element(v.begin(), v.begin() + v.size() / 2, v.end());
    return v[v.size() / 2];
  }
};

}  // namespace sessa
