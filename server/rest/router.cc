// See router.h.
#include "server/rest/router.h"

#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"

namespace sessa {
namespace {

struct FixedRoute {
  const char* path;
  Route route;
};

const std::vector<FixedRoute>& FixedRoutes() {
  static const auto* const routes = new std::vector<FixedRoute>{
      {"/", {.endpoint = Endpoint::kPage, .is_open = true}},
      {"/livez", {.endpoint = Endpoint::kLive, .is_open = true}},
      {"/readyz", {.endpoint = Endpoint::kReady, .is_open = true}},
      {"/startupz", {.endpoint = Endpoint::kStartup, .is_open = true}},
      {"/health", {.endpoint = Endpoint::kHealth, .is_open = true}},
      {"/metrics", {.endpoint = Endpoint::kMetrics, .is_open = true}},
      {"/version", {.endpoint = Endpoint::kVersion}},
      {"/v1/limits", {.endpoint = Endpoint::kLimits}},
      {"/v1/models", {.endpoint = Endpoint::kModels}},
      {"/v1/completions", {.endpoint = Endpoint::kCompletions, .is_post = true, .generates = true}},
      {"/v1/chat/completions", {.endpoint = Endpoint::kChat, .is_post = true, .generates = true}},
      {"/v1/similarity", {.endpoint = Endpoint::kSimilarity, .is_post = true, .generates = true}},
      {"/tokenize", {.endpoint = Endpoint::kTokenize, .is_post = true}},
      {"/detokenize", {.endpoint = Endpoint::kDetokenize, .is_post = true}},
      {"/v2/health/live", {.endpoint = Endpoint::kKserveLive, .is_open = true}},
      {"/v2/health/ready", {.endpoint = Endpoint::kKserveReady, .is_open = true}},
  };
  return *routes;
}

}  // namespace

std::optional<Route> FindRoute(const std::string& path) {
  for (const FixedRoute& fixed : FixedRoutes()) {
    if (path == fixed.path) return fixed.route;
  }
  if (absl::StartsWith(path, "/web/")) return Route{.endpoint = Endpoint::kPage, .is_open = true};
  absl::string_view rest = path;
  if (absl::ConsumePrefix(&rest, "/v1/models/") && !rest.empty()) {
    return Route{.endpoint = Endpoint::kModel,
                 .model = std::string(rest)};  // a model's name may hold slashes
  }
  rest = path;
  if (!absl::ConsumePrefix(&rest, "/v2/models/")) return std::nullopt;
  Route route{.endpoint = Endpoint::kKserveModel};
  if (absl::ConsumeSuffix(&rest, "/generate_stream")) {
    route = {.endpoint = Endpoint::kKserveGenerateStream, .is_post = true, .generates = true};
  } else if (absl::ConsumeSuffix(&rest, "/generate")) {
    route = {.endpoint = Endpoint::kKserveGenerate, .is_post = true, .generates = true};
  } else if (absl::ConsumeSuffix(&rest, "/ready")) {
    route.endpoint = Endpoint::kKserveModelReady;
  }
  route.model = std::string(rest);
  if (route.model.empty()) return std::nullopt;
  return route;
}

}  // namespace sessa
