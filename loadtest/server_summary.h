// What the server said of itself while a run went on: its own metrics, read at the start, on the way and at
// the end, summarised over the same window as the client's figures. Knows this server's names and vLLM's, by
// one table.
#pragma once

#include <string>
#include <vector>

#include "absl/types/span.h"
#include "loadtest/definitions.h"
#include "loadtest/record.h"
#include "loadtest/summary.h"

namespace sessa::loadtest {

struct ServerFigure {
  const char* key;  // in the JSON
  const char* label;
  Unit unit;
  const char* meaning;  // one sentence
  double value;         // NaN: the server has no such metric
};

// A gauge as it went. Parallel to ServerSummary::times; NaN where a sample lacks it.
struct ServerSeries {
  const char* key;
  const char* label;
  Unit unit;
  std::vector<double> values;
};

struct ServerSummary {
  int num_samples = 0;  // 0: the server has no metrics that are known here, and the rest is empty
  std::vector<ServerFigure> figures;
  std::vector<double> times;
  std::vector<ServerSeries> series;  // running, waiting, cache usage: of the whole run
};

// Counters and histograms: what they grew by from the last sample at or before the window's begin to the
// first at or after its end (of what there is). A counter that fell began anew, with the server, and counts
// from zero. Gauges: over the samples in the window. A series with labels is summed over them, a ratio
// averaged.
ServerSummary SummarizeServer(const std::vector<MetricsSample>& samples, const Window& window);

}  // namespace sessa::loadtest
