// Input: the body of any POST endpoint. Checks that every refusal can be rendered as the API's error, and
// that what the server accepts the engine accepts too: nothing is judged in two ways.
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>

#include "engine/check_request.h"
#include "server/rest/http_message.h"
#include "server/rest/json_parse.h"
#include "server/rest/request_json.h"

namespace {

class NullSink final : public sessa::TokenSink {
 public:
  void OnPrompt(const sessa::PromptInfo&) override {}
  bool OnToken(sessa::TokenUpdate) override { return true; }
  void OnEnd(const sessa::RequestEnd&) override {}
};

void CheckError(const absl::Status& error) {
  const sessa::ErrorInfo info = sessa::Describe(error);
  if (info.http_status != 400 && info.http_status != 404) std::abort();
  const auto json = sessa::ParseJson(sessa::ErrorJson(info), 4);
  if (!json.ok() || json->at("error").at("message").get_string().empty()) std::abort();
}

void CheckGeneration(const absl::StatusOr<sessa::ParsedGeneration>& parsed, const sessa::Limits& limits) {
  if (!parsed.ok()) return CheckError(parsed.status());
  const std::string header = sessa::IgnoredFieldsHeader(parsed->ignored);
  if (header.size() > 600 || header.find_first_of("\r\n") != std::string::npos) std::abort();
  sessa::ModelConfig config;
  config.vocab_size = 1000;
  const sessa::ModelFacts facts = {"demo", config.vocab_size, 4096, true, {}};
  if (absl::Status valid = sessa::ValidateRequest(parsed->request, facts, limits); !valid.ok())
    return CheckError(valid);
  sessa::Request request;
  if (absl::Status fits = sessa::ToSampling(parsed->request, facts, 10, 1, &request.sampling); !fits.ok())
    return CheckError(fits);
  request.prompt = {1};
  request.n = static_cast<int>(parsed->request.n);
  request.sink = std::make_shared<NullSink>();
  const absl::Status engine = sessa::CheckRequest(request, config);
  // The one thing that the engine knows alone: whether anything is left to draw before min_tokens.
  if (!engine.ok() && engine.message().find("forbids every token") == std::string::npos) std::abort();
}

template <typename Parsed>
void CheckParsed(const absl::StatusOr<Parsed>& parsed) {
  if (!parsed.ok()) CheckError(parsed.status());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string body(reinterpret_cast<const char*>(data), size);
  const sessa::Limits limits;
  CheckGeneration(sessa::ParseCompletion(body, limits), limits);
  CheckGeneration(sessa::ParseChatCompletion(body, limits), limits);
  CheckGeneration(sessa::ParseResponses(body, limits), limits);
  CheckGeneration(sessa::ParseKserveGenerate(body, limits, false), limits);
  CheckParsed(sessa::ParseSimilarity(body, limits));
  CheckParsed(sessa::ParseTokenize(body, limits));
  CheckParsed(sessa::ParseDetokenize(body, limits));
  return 0;
}
