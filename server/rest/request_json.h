// Bodies of the REST API to core's requests. Only form is judged here (types, what cannot be expressed in
// GenerationRequest); values are ValidateRequest's. Pure functions: no engine, no sockets; fuzzed by
// rest_json_fuzz.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "boost/json/object.hpp"
#include "server/core/generation_request.h"
#include "server/core/limits.h"
#include "server/core/similarity_request.h"

namespace sessa {

struct ParsedGeneration {
  GenerationRequest request;
  std::vector<std::string> ignored;  // paths of fields that are not known
  std::set<std::string> known;       // names of those that are, there or not; of KServe, in `parameters`
  std::string settings;              // /v1/responses: members of the body that the answer repeats
  std::string kserve_id;             // KServe: the client's own id, given back
  bool details = false;              // KServe: finish reason and log-probabilities in the reply
};

absl::StatusOr<ParsedGeneration> ParseCompletion(const std::string& body, const Limits& limits);
absl::StatusOr<ParsedGeneration> ParseChatCompletion(const std::string& body, const Limits& limits);
absl::StatusOr<ParsedGeneration> ParseResponses(const std::string& body, const Limits& limits);
// `stream`: generate_stream was asked for.
absl::StatusOr<ParsedGeneration> ParseKserveGenerate(const std::string& body, const Limits& limits,
                                                     bool stream);

struct ParsedSimilarity {
  SimilarityRequest request;
  std::vector<std::string> ignored;
  std::set<std::string> known;
};
absl::StatusOr<ParsedSimilarity> ParseSimilarity(const std::string& body, const Limits& limits);

// The form of a chat's members alone (messages, tools, documents, chat_template_kwargs ...), in whatever they
// came.
absl::Status ReadChat(const boost::json::object& chat, const Limits& limits, Chat* out);

// The sampling parameters of KServe's requests, whatever they came in; `out` gets the request and `details`.
absl::Status ReadKserveParameters(const boost::json::object& parameters, ParsedGeneration* out);

struct ParsedTokenize {
  std::string model;
  bool is_chat = false;
  std::string prompt;
  Chat chat;
  std::optional<bool> add_special_tokens;
  std::vector<std::string> ignored;
  std::set<std::string> known;
};
absl::StatusOr<ParsedTokenize> ParseTokenize(const std::string& body, const Limits& limits);

struct ParsedDetokenize {
  std::string model;
  std::vector<int64_t> tokens;
  bool skip_special_tokens = false;
  std::vector<std::string> ignored;
  std::set<std::string> known;
};
absl::StatusOr<ParsedDetokenize> ParseDetokenize(const std::string& body, const Limits& limits);

}  // namespace sessa
