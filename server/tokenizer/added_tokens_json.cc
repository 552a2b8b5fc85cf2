#include "server/tokenizer/added_tokens_json.h"

#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "server/tokenizer/files.h"
#include "server/tokenizer/json_fields.h"

namespace sessa {
namespace {

namespace json = boost::json;

AddedToken ParseToken(JsonFields* fields, int32_t id) {
  AddedToken token;
  token.id = id;
  token.content = fields->String("content");
  token.special = fields->Bool("special", false);
  token.lstrip = fields->Bool("lstrip", false);
  token.rstrip = fields->Bool("rstrip", false);
  token.single_word = fields->Bool("single_word", false);
  token.normalized = fields->Bool("normalized", !token.special);
  if (token.content.empty()) fields->Fail("content", "must not be empty");
  return token;
}

}  // namespace

absl::StatusOr<std::vector<AddedToken>> ParseAddedTokens(const json::value& list) {
  std::vector<AddedToken> tokens;
  if (list.is_null()) return tokens;
  if (!list.is_array()) return absl::InvalidArgumentError("tokenizer.json.added_tokens: must be a list");
  for (size_t i = 0; i < list.as_array().size(); ++i) {
    JsonFields fields(list.as_array()[i], absl::StrCat("tokenizer.json.added_tokens[", i, "]"));
    const int32_t id = fields.Id("id");
    tokens.push_back(ParseToken(&fields, id));
    if (!fields.status().ok()) return fields.status();
  }
  return tokens;
}

absl::StatusOr<std::vector<AddedToken>> ParseAddedTokensDecoder(const json::value& config) {
  std::vector<AddedToken> tokens;
  JsonFields fields(config, "tokenizer_config.json");
  if (fields.Find("added_tokens_decoder") == nullptr) return tokens;
  const json::object* object = fields.Object("added_tokens_decoder");
  if (object == nullptr) return fields.status();
  for (const auto& [key, value] : *object) {
    JsonFields token(value, absl::StrCat("tokenizer_config.json.added_tokens_decoder.", std::string(key)));
    int32_t id = 0;
    if (!absl::SimpleAtoi(absl::string_view(key.data(), key.size()), &id) || id < 0)
      token.Fail("", "is no token id");
    tokens.push_back(ParseToken(&token, id));
    if (!token.status().ok()) return token.status();
  }
  return tokens;
}

absl::StatusOr<std::vector<std::string>> ParseNamedTokens(const json::value& config) {
  std::vector<std::string> names;
  for (const char* key :
       {"bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"}) {
    auto name = TokenOfConfig(config, key);
    if (!name.ok()) return name.status();
    if (!name->empty()) names.push_back(*std::move(name));
  }
  JsonFields fields(config, "tokenizer_config.json");
  for (const char* key : {"additional_special_tokens", "extra_special_tokens"}) {
    const json::value* list = fields.Find(key);
    if (list == nullptr || !list->is_array()) continue;  // an object names tokens of other modalities
    for (const json::value& item : list->as_array()) {
      if (item.is_string()) {
        names.emplace_back(item.as_string());
        continue;
      }
      JsonFields token(item, absl::StrCat("tokenizer_config.json.", key));
      names.push_back(token.String("content"));
      if (!token.status().ok()) return token.status();
    }
  }
  return names;
}

}  // namespace sessa
