// Which endpoint a path names. Pure.
#pragma once

#include <optional>
#include <string>

namespace sessa {

enum class Endpoint {
  kPage,  // "/" and the files that it loads, "/web/..."; not each of them is there
  kLive,
  kReady,
  kStartup,
  kHealth,
  kMetrics,
  kVersion,
  kLimits,
  kModels,
  kModel,
  kCompletions,
  kChat,
  kSimilarity,
  kTokenize,
  kDetokenize,
  kKserveLive,
  kKserveReady,
  kKserveModel,
  kKserveModelReady,
  kKserveGenerate,
  kKserveGenerateStream,
};

struct Route {
  Endpoint endpoint = Endpoint::kPage;
  std::string model = {};  // of the path
  bool is_post = false;    // else GET and HEAD
  bool is_open = false;    // needs no API key
  bool generates = false;  // is counted as a generation request

  // What is asked about the server, rather than of it.
  bool is_probe() const { return is_open && endpoint != Endpoint::kPage; }
  bool is_kserve() const { return endpoint >= Endpoint::kKserveLive; }
};

std::optional<Route> FindRoute(const std::string& path);

}  // namespace sessa
