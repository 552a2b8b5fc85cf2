// Reads a server's /metrics beside the load: before its start, on the way, and after its end.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "boost/asio/io_context.hpp"
#include "boost/asio/steady_timer.hpp"
#include "loadtest/clock.h"
#include "loadtest/http.h"
#include "loadtest/record.h"

namespace sessa::loadtest {

// On the loop's thread, but for ScrapeNow, which blocks.
class MetricsScraper final : private HttpHandler {
 public:
  // `url` is that of the server; the text is at /metrics below it.
  MetricsScraper(boost::asio::io_context* io, const Clock& clock, const HttpUrl& url,
                 std::vector<boost::asio::ip::tcp::endpoint> endpoints, double interval_seconds);

  // The error of a server that has no metrics.
  absl::Status ScrapeNow();
  // From now on every interval. A reading that fails or takes longer than an interval is left out.
  void Start();
  void Stop();
  std::vector<MetricsSample> TakeSamples() { return std::move(samples_); }

 private:
  void Arm();
  void OnSent(double) override { body_.clear(); }
  void OnHeaders(double, int status) override { status_ = status; }
  void OnBody(double, absl::string_view bytes) override { body_.append(bytes.data(), bytes.size()); }
  void OnEnd(double at) override;
  void OnFailure(double, bool, const std::string&) override { waiting_ = false; }

  const Clock clock_;
  const std::vector<boost::asio::ip::tcp::endpoint> endpoints_;
  const double interval_;
  HttpPool pool_;
  boost::asio::steady_timer timer_;
  const std::shared_ptr<const HttpRequest> request_;
  std::vector<MetricsSample> samples_;
  std::string body_;
  int status_ = 0;
  bool waiting_ = false;
};

}  // namespace sessa::loadtest
