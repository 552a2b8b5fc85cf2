// See rate_plot.h.
#include "tests/bench/rate_plot.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace sessa {
namespace {

// In pixels. Labels of curves stand right of their last point.
constexpr double kWidth = 420, kHeight = 260, kLeft = 60, kTop = 34, kRight = 80, kBottom = 30;
constexpr const char* kColors[] = {"#1f6feb", "#d4722a", "#2a9d5c", "#8957e5"};  // on white and on black

class Panel {
 public:
  Panel(const RatePanel& panel, double x) : panel_(panel), x_(x) {
    for (const RateCurve& curve : panel.curves) {
      for (const auto& [context, rate] : curve.points) {
        low_x_ = std::min(low_x_, context), high_x_ = std::max(high_x_, context);
        low_y_ = std::min(low_y_, rate), high_y_ = std::max(high_y_, rate);
      }
    }
    low_y_ = std::pow(10, std::floor(std::log10(low_y_)));
    high_y_ = std::pow(10, std::ceil(std::log10(high_y_)));
  }

  std::string Draw() const {
    std::string out = Text(x_ + kLeft, 18, "start", panel_.title, "bold");
    for (double y = low_y_; y <= high_y_ * 1.01; y *= 10) {
      absl::StrAppend(&out, absl::StrFormat(R"(<path d="M%.1f %.1fH%.1f" class="grid"/>)", x_ + kLeft, Y(y),
                                            x_ + kWidth - kRight));
      absl::StrAppend(&out, Text(x_ + kLeft - 6, Y(y) + 4, "end", absl::StrFormat("%.0f", y)));
    }
    for (double c = low_x_; c <= high_x_; c *= 2) {
      const std::string label = c >= 1024 ? absl::StrCat(c / 1024, "K") : absl::StrCat(c);
      absl::StrAppend(&out, Text(X(c), kHeight - kBottom + 18, "middle", label));
    }
    for (size_t i = 0; i < panel_.curves.size(); ++i) {
      const RateCurve& curve = panel_.curves[i];
      std::string path;
      for (const auto& [context, rate] : curve.points) {
        absl::StrAppend(&path, path.empty() ? "M" : "L", absl::StrFormat("%.1f %.1f", X(context), Y(rate)));
      }
      const char* color = kColors[i % std::size(kColors)];
      absl::StrAppend(&out, R"(<path d=")", path, R"(" fill="none" stroke-width="2" stroke=")", color,
                      R"("/>)");
      absl::StrAppend(&out, Text(X(curve.points.back().first) + 6, Y(curve.points.back().second) + 4, "start",
                                 curve.name, "normal", color));
    }
    return out;
  }

 private:
  static double Share(double value, double low, double high) {
    return high > low ? std::log(value / low) / std::log(high / low) : 0;
  }
  double X(double c) const { return x_ + kLeft + (kWidth - kLeft - kRight) * Share(c, low_x_, high_x_); }
  double Y(double r) const {
    return kHeight - kBottom - (kHeight - kTop - kBottom) * Share(r, low_y_, high_y_);
  }
  static std::string Text(double x, double y, const char* anchor, const std::string& text,
                          const char* weight = "normal", const char* color = "#777") {
    return absl::StrFormat(R"(<text x="%.1f" y="%.1f" text-anchor="%s" font-weight="%s" fill="%s">%s</text>)",
                           x, y, anchor, weight, color, text);
  }

  const RatePanel& panel_;
  const double x_;
  double low_x_ = 1e30, high_x_ = 0, low_y_ = 1e30, high_y_ = 0;
};

}  // namespace

std::string RatePlot(const std::vector<RatePanel>& panels) {
  std::string out = absl::StrFormat(
      R"(<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" font-family="sans-serif" font-size="12"><style>.grid{stroke:#7774}</style>)",
      kWidth * panels.size(), kHeight);
  for (size_t i = 0; i < panels.size(); ++i) absl::StrAppend(&out, "\n", Panel(panels[i], kWidth * i).Draw());
  return out + "\n</svg>\n";
}

}  // namespace sessa
