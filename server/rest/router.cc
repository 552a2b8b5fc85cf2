// See router.h.
#include "server/rest/router.h"

#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
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
      {"/ping", {.endpoint = Endpoint::kHealth, .also_post = true, .is_open = true}},
      {"/openapi.json", {.endpoint = Endpoint::kOpenApi, .is_open = true}},
      {"/metrics", {.endpoint = Endpoint::kMetrics, .is_open = true}},
      {"/version", {.endpoint = Endpoint::kVersion}},
      {"/v1/limits", {.endpoint = Endpoint::kLimits}},
      {"/load", {.endpoint = Endpoint::kLoad}},
      {"/get_load", {.endpoint = Endpoint::kRouterLoad}},
      {"/server_info", {.endpoint = Endpoint::kRouterServer}},
      {"/get_server_info", {.endpoint = Endpoint::kRouterServer}},
      {"/model_info", {.endpoint = Endpoint::kRouterModel}},
      {"/get_model_info", {.endpoint = Endpoint::kRouterModel}},
      {"/tokenizer_info", {.endpoint = Endpoint::kTokenizerInfo}},
      {"/v1/models", {.endpoint = Endpoint::kModels}},
      {"/v1/completions", {.endpoint = Endpoint::kCompletions, .is_post = true, .generates = true}},
      {"/v1/chat/completions", {.endpoint = Endpoint::kChat, .is_post = true, .generates = true}},
      {"/v1/similarity", {.endpoint = Endpoint::kSimilarity, .is_post = true, .generates = true}},
      {"/v1/responses", {.endpoint = Endpoint::kResponses, .is_post = true, .generates = true}},
      {"/tokenize", {.endpoint = Endpoint::kTokenize, .is_post = true}},
      {"/detokenize", {.endpoint = Endpoint::kDetokenize, .is_post = true}},
      {"/v2/health/live", {.endpoint = Endpoint::kKserveLive, .is_open = true}},
      {"/v2/health/ready", {.endpoint = Endpoint::kKserveReady, .is_open = true}},
      {"/v2", {.endpoint = Endpoint::kKserveServer}},
      {"/v2/", {.endpoint = Endpoint::kKserveServer}},
      {"/v2/models/stats", {.endpoint = Endpoint::kKserveStatistics}},
      {"/v2/repository/index", {.endpoint = Endpoint::kKserveIndex, .is_post = true}},
  };
  return *routes;
}

// Behind /v2/models/NAME.
constexpr std::pair<absl::string_view, Route (*)()> kOfModel[] = {
    {"/generate_stream",
     [] { return Route{.endpoint = Endpoint::kKserveGenerateStream, .is_post = true, .generates = true}; }},
    {"/generate",
     [] { return Route{.endpoint = Endpoint::kKserveGenerate, .is_post = true, .generates = true}; }},
    {"/infer", [] { return Route{.endpoint = Endpoint::kKserveInfer, .is_post = true, .generates = true}; }},
    {"/ready", [] { return Route{.endpoint = Endpoint::kKserveModelReady}; }},
    {"/config", [] { return Route{.endpoint = Endpoint::kKserveConfig}; }},
    {"/stats", [] { return Route{.endpoint = Endpoint::kKserveStatistics}; }},
};

// /v2/models/NAME[/versions/VERSION][/WHAT], /v2/repository/models/NAME/WHAT
std::optional<Route> FindKserveRoute(absl::string_view path) {
  Route route{.endpoint = Endpoint::kKserveModel};
  if (absl::ConsumePrefix(&path, "/v2/repository/models/")) {
    route = {.endpoint = Endpoint::kKserveLoad, .is_post = true};
    if (!absl::ConsumeSuffix(&path, "/load") && !absl::ConsumeSuffix(&path, "/unload")) return std::nullopt;
  } else if (absl::ConsumePrefix(&path, "/v2/models/")) {
    for (const auto& [suffix, make] : kOfModel) {
      if (!absl::ConsumeSuffix(&path, suffix)) continue;
      route = make();
      break;
    }
    if (const size_t at = path.rfind("/versions/"); at != path.npos && at > 0) {
      route.version = std::string(path.substr(at + 10));
      path = path.substr(0, at);
      if (route.version.empty() || absl::StrContains(route.version, "/")) return std::nullopt;
    }
  } else {
    return std::nullopt;
  }
  route.model = std::string(path);
  if (route.model.empty()) return std::nullopt;
  return route;
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
  return FindKserveRoute(path);
}

std::vector<std::string> KnownPaths() {
  std::vector<std::string> paths = {"/v1/models/{model}", "/v2/models/{model}",
                                    "/v2/repository/models/{model}/load",
                                    "/v2/repository/models/{model}/unload"};
  for (const FixedRoute& fixed : FixedRoutes()) paths.push_back(fixed.path);
  for (const auto& [suffix, make] : kOfModel) paths.push_back(absl::StrCat("/v2/models/{model}", suffix));
  return paths;
}

bool IsKservePath(const std::string& path) { return path == "/v2" || absl::StartsWith(path, "/v2/"); }

}  // namespace sessa
