// Which endpoint a path names. Pure.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace sessa {

enum class Endpoint {
  kPage,  // "/" and the files that it loads, "/web/..."; not each of them is there
  kOpenApi,
  kLive,
  kReady,
  kStartup,
  kHealth,
  kMetrics,
  kVersion,
  kLimits,
  kLoad,
  kRouterLoad,  // what prefix-aware routers ask of a worker, as SGLang's answers it
  kRouterServer,
  kRouterModel,
  kModels,
  kModel,
  kCompletions,
  kChat,
  kSimilarity,
  kResponses,
  kTokenize,
  kDetokenize,
  kTokenizerInfo,
  kKserveLive,
  kKserveReady,
  kKserveServer,
  kKserveIndex,
  kKserveLoad,  // and unload: there is one model, as long as the server runs
  kKserveModel,
  kKserveModelReady,
  kKserveConfig,
  kKserveStatistics,
  kKserveInfer,
  kKserveGenerate,
  kKserveGenerateStream,
};

struct Route {
  Endpoint endpoint = Endpoint::kPage;
  std::string model = {};    // of the path
  std::string version = {};  // of the model, as the path has it; KServe
  bool is_post = false;      // else GET and HEAD
  bool also_post = false;    // beside those, with whatever body
  bool is_open = false;      // needs no API key
  bool generates = false;    // is counted as a generation request

  // What is asked about the server, rather than of it.
  bool is_probe() const { return is_open && endpoint > Endpoint::kOpenApi; }
  // As the header Allow has them.
  const char* methods() const { return is_post ? "POST" : also_post ? "GET, HEAD, POST" : "GET, HEAD"; }
  bool is_kserve() const { return endpoint >= Endpoint::kKserveLive; }
};

std::optional<Route> FindRoute(const std::string& path);

// Every path that there is, but for the page's files and versions of models, with {model} for its name.
std::vector<std::string> KnownPaths();

// Whether errors there are written as KServe's.
bool IsKservePath(const std::string& path);

}  // namespace sessa
