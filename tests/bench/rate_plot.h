// An SVG of rates by context, for docs: panels side by side, both axes logarithmic, a line and a label for
// each curve.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace sessa {

struct RateCurve {
  std::string name;
  std::vector<std::pair<double, double>> points;  // context, rate; both above 0
};
struct RatePanel {
  std::string title;
  std::vector<RateCurve> curves;
};

std::string RatePlot(const std::vector<RatePanel>& panels);

}  // namespace sessa
