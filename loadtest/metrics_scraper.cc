// See metrics_scraper.h.
#include "loadtest/metrics_scraper.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "loadtest/prometheus_text.h"

namespace sessa::loadtest {
namespace {
constexpr double kTimeoutSeconds = 10;
}

MetricsScraper::MetricsScraper(boost::asio::io_context* io, const Clock& clock, const HttpUrl& url,
                               std::vector<boost::asio::ip::tcp::endpoint> endpoints, double interval_seconds)
    : clock_(clock),
      endpoints_(endpoints),
      interval_(interval_seconds),
      pool_(io, clock, std::move(endpoints)),
      timer_(*io),
      request_(std::make_shared<HttpRequest>(MakeGet(url, "/metrics", ""))) {}

absl::Status MetricsScraper::ScrapeNow() {
  const absl::StatusOr<HttpAnswer> answer = Fetch(endpoints_, *request_, kTimeoutSeconds);
  if (!answer.ok()) return answer.status();
  if (answer->status != 200)
    return absl::NotFoundError(absl::StrCat("/metrics answers with status ", answer->status));
  auto values = ParsePrometheusText(answer->body);
  if (!values.ok()) return values.status();
  samples_.push_back({std::max(0.0, clock_.Now()), *std::move(values)});
  return absl::OkStatus();
}

void MetricsScraper::Start() {
  timer_.expires_at(clock_.At(interval_));
  Arm();
}

void MetricsScraper::Arm() {
  timer_.async_wait([this](boost::system::error_code error) {
    if (error) return;
    if (!waiting_) {
      waiting_ = true;
      pool_.Send(request_, this);
    }
    timer_.expires_at(timer_.expiry() + Clock::ToDuration(interval_));
    Arm();
  });
}

void MetricsScraper::Stop() {
  timer_.cancel();
  Leave();
}

void MetricsScraper::OnEnd(double at) {
  waiting_ = false;
  if (status_ != 200) return;
  auto values = ParsePrometheusText(body_);
  if (values.ok()) samples_.push_back({at, *std::move(values)});
}

}  // namespace sessa::loadtest
