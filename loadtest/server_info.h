// What a server says of itself before anything is sent to it.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "loadtest/http.h"

namespace sessa::loadtest {

struct ServerInfo {
  std::string model;      // its name; empty: unknown
  int vocab_size = 0;     // 0: unknown
  int max_model_len = 0;  // 0: unknown
};

// GET /v1/models. `model`: the wanted one; empty: the first. UNAVAILABLE: no answer; NOT_FOUND: no such
// model; other errors: it answers, but not as the OpenAI API has it.
absl::StatusOr<ServerInfo> AskRestServer(const HttpUrl& url,
                                         const std::vector<boost::asio::ip::tcp::endpoint>& endpoints,
                                         const std::string& key, const std::string& model);
// sessa.v1 GetModelInfo.
absl::StatusOr<ServerInfo> AskGrpcServer(const std::string& address, const std::string& key,
                                         const std::string& model);

}  // namespace sessa::loadtest
