// See request_json.h: /v1/similarity.
#include <utility>

#include "server/core/errors.h"
#include "server/rest/request_json.h"
#include "server/rest/request_json_internal.h"
#include "server/rest/unserved_fields.h"

namespace sessa {
namespace {

// What would change the distribution that continuations are drawn from: they are scored under the model's
// own.
constexpr const char* kNotServed[] = {"temperature",
                                      "top_p",
                                      "top_k",
                                      "min_p",
                                      "min_tokens",
                                      "presence_penalty",
                                      "frequency_penalty",
                                      "logit_bias",
                                      "repetition_penalty",
                                      "stop",
                                      "stop_token_ids",
                                      "allowed_token_ids",
                                      "stream",
                                      "messages",
                                      "prompt"};

}  // namespace

absl::StatusOr<ParsedSimilarity> ParseSimilarity(const std::string& body, const Limits& limits) {
  absl::StatusOr<boost::json::value> value = ParseBody(body, limits);
  if (!value.ok()) return value.status();
  ParsedSimilarity parsed;
  ReadLog log;
  SimilarityRequest& r = parsed.request;
  Fields fields(value->get_object(), "", &log);
  fields.Read("model", &r.model);
  if (const boost::json::value* input = fields.Find("input")) {
    log.Fail(ReadPrompts(*input, "input", &r.texts));
  } else {
    log.Fail(FieldError("input", "is needed", "missing_field"));
  }
  fields.Read("n", &r.num_samples);
  fields.Read("max_tokens", &r.max_tokens);
  ReadSeed(fields, &log, &r.seed);
  fields.Read("ignore_eos", &r.ignore_eos);
  fields.Read("add_special_tokens", &r.add_special_tokens);
  fields.Read("priority", &r.priority);
  ReadTimeout(fields, &log, &r.timeout);
  std::string user;
  fields.Read("user", &user);
  for (const char* name : kNotServed) {
    if (fields.Find(name) != nullptr)
      log.Fail(FieldError(
          name, "is not served here: texts are in input, and continuations are drawn as the model has them",
          "unsupported_field"));
  }
  RefuseUnserved(fields, &log);
  fields.ListIgnored();
  if (!log.status.ok()) return log.status;
  parsed.known = fields.TakeKnown();
  parsed.ignored = std::move(log.ignored);
  return parsed;
}

}  // namespace sessa
