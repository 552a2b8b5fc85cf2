// What the page draws of a run: its records reduced to a few thousand points, however many there were, so
// that the page of 100 000 requests is a file of well below a megabyte. Each reduction says what it left out.
#pragma once

#include <boost/json.hpp>

#include "loadtest/report_data.h"

namespace sessa::loadtest {

inline constexpr int kMaxGapPoints = 3000;      // the longest ones
inline constexpr int kMaxTimeBins = 100;        // of equal length; rates and means within each
inline constexpr int kNumHistogramBins = 40;    // of equal ratio, over all values
inline constexpr int kQuantilesPerDecade = 25;  // of 1 - q

// {"quantiles": [{"key", "count", "nines": [...], "values": [...]}],   nines = -log10(1 - q)
//  "histograms": [{"key", "count", "edges": [...], "shares": [...]}],  one edge more than shares
//  "gaps": {"total", "threshold", "at": [...], "seconds": [...], "request": [...]},  by time
//  "timeline": {"bin", "at": [...], "output_tokens_per_second": [...], "finished_per_second": [...],
//               "failed_per_second": [...], "in_flight": [...]},  of all requests but the probes; at = middle
//               of the bin
//  "server": null | {"bin", "at": [...], "series": [{"key", "label", "unit", "mean": [...], "max": [...]}]}}
// Latencies and gaps are of the window, the timelines of the whole run. Seconds, to five digits; in quantiles
// and histograms what is below 10 us counts as that.
boost::json::object PlotData(const RunReport& report);

}  // namespace sessa::loadtest
