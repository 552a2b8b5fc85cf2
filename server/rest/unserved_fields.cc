// See unserved_fields.h. Names are those of vLLM 0.11, SGLang 0.5, llama.cpp's server and TGI 3.
#include "server/rest/unserved_fields.h"

#include <string>
#include <vector>

#include "boost/json/parse.hpp"
#include "server/core/errors.h"

namespace sessa {
namespace {

namespace json = boost::json;

struct UnservedField {
  const char* name;
  const char* neutral = "null";  // the JSON that asks for nothing; so does null
};

constexpr UnservedField kUnserved[] = {
    // The form of the answer.
    {"guided_json"},
    {"guided_regex"},
    {"guided_choice"},
    {"guided_grammar"},
    {"guided_decoding_backend"},
    {"guided_whitespace_pattern"},
    {"structured_outputs"},
    {"structural_tag"},
    {"json_schema"},
    {"regex"},
    {"ebnf"},
    {"grammar"},
    // Which tokens it has.
    {"bad_words", "[]"},
    {"logits_processors", "[]"},
    {"custom_logit_processor"},
    {"use_beam_search", "false"},
    {"length_penalty", "1"},
    {"early_stopping", "false"},
    {"typical_p", "1"},
    {"top_a", "0"},
    {"top_n_sigma", "-1"},
    {"tfs_z", "1"},
    {"mirostat", "0"},
    {"repeat_penalty", "1"},
    {"dry_multiplier", "0"},
    {"xtc_probability", "0"},
    {"dynatemp_range", "0"},
    {"watermark", "false"},
    {"thinking_token_budget"},
    {"vllm_xargs", "{}"},
    // What it is an answer to, and of which model.
    {"prompt_embeds"},
    {"mm_processor_kwargs", "{}"},
    {"lora_path"},
    {"lora_request"},
    {"adapter_id"},
    {"continue_final_message", "false"},
    {"chat_template"},
    {"web_search_options"},
    // How it is written.
    {"detokenize", "true"},
    {"spaces_between_special_tokens", "true"},
    {"return_tokens_as_token_ids", "false"},
    {"n_probs", "0"},
    {"verbosity", "\"medium\""},
    {"audio"},
};

// 1 and 1.0 are the same here, as they are to clients.
bool IsNeutral(const json::value& value, const char* neutral) {
  const json::value expected = json::parse(neutral);
  if (value.is_number() && expected.is_number())
    return value.to_number<double>() == expected.to_number<double>();
  return value == expected;
}

}  // namespace

absl::Status Unserved(const std::string& path) {
  return FieldError(path, "is not supported by this server", "unsupported_field");
}

void RefuseUnserved(Fields& fields, ReadLog* log) {
  for (const UnservedField& field : kUnserved) {
    const json::value* value = fields.Find(field.name);
    if (value != nullptr && !IsNeutral(*value, field.neutral)) log->Fail(Unserved(fields.Path(field.name)));
  }
}

std::vector<std::string> UnservedFields() {
  std::vector<std::string> names;
  for (const UnservedField& field : kUnserved) names.push_back(field.name);
  return names;
}

}  // namespace sessa
