#include "server/tokenizer/post_processor.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/tokenizer/json_fields.h"

namespace sessa {
namespace {

namespace json = boost::json;
using IdOf = std::function<std::optional<int32_t>(std::string_view)>;

constexpr char kWhere[] = "tokenizer.json.post_processor";

// The ids that "special_tokens" of a template gives `name`, or its own.
absl::Status AppendSpecial(JsonFields* fields, const std::string& name, const IdOf& id_of,
                           std::vector<int32_t>* ids) {
  if (fields->Find("special_tokens") != nullptr) {
    if (const json::object* tokens = fields->Object("special_tokens");
        tokens != nullptr && tokens->contains(name)) {
      JsonFields token(tokens->at(name), absl::StrCat(kWhere, ".special_tokens"));
      const json::array* list = token.Array("ids");
      if (list == nullptr) return token.status();
      for (const json::value& id : *list) {
        if (!id.is_int64() || id.as_int64() < 0 || id.as_int64() > 0x7fffffff)
          token.Fail("ids", "must be token ids");
        if (!token.status().ok()) return token.status();
        ids->push_back(static_cast<int32_t>(id.as_int64()));
      }
      return token.status();
    }
  }
  const auto id = id_of(name);
  if (!id.has_value()) return absl::InvalidArgumentError(absl::StrCat(kWhere, ": '", name, "' is no token"));
  ids->push_back(*id);
  return fields->status();
}

absl::StatusOr<SpecialTokensAround> ParseTemplate(JsonFields* fields, const IdOf& id_of) {
  const json::array* single = fields->Array("single");
  if (single == nullptr) return fields->status();
  SpecialTokensAround around;
  bool seen = false;  // the text itself
  for (const json::value& item : *single) {
    JsonFields element(item, absl::StrCat(kWhere, ".single"));
    if (element.Find("Sequence") != nullptr) {
      if (std::exchange(seen, true)) element.Fail("Sequence", "stands there twice");
    } else if (const json::value* special = element.Find("SpecialToken")) {
      JsonFields token(*special, absl::StrCat(kWhere, ".single.SpecialToken"));
      const std::string name = token.String("id");
      if (!token.status().ok()) return token.status();
      absl::Status added = AppendSpecial(fields, name, id_of, seen ? &around.suffix : &around.prefix);
      if (!added.ok()) return added;
    } else {
      element.Fail("", "must be a Sequence or a SpecialToken");
    }
    if (!element.status().ok()) return element.status();
  }
  if (!seen) return absl::InvalidArgumentError(absl::StrCat(kWhere, ".single: has no Sequence"));
  return around;
}

// BERT's and RoBERTa's: "cls" before the text and "sep" after it, each as ["<s>", 0].
absl::StatusOr<SpecialTokensAround> ParseBert(JsonFields* fields) {
  SpecialTokensAround around;
  for (auto [key, ids] : {std::pair{"cls", &around.prefix}, {"sep", &around.suffix}}) {
    const json::array* pair = fields->Array(key);
    const json::value* id = pair != nullptr && pair->size() == 2 ? &(*pair)[1] : nullptr;
    if (id == nullptr || !id->is_int64() || id->as_int64() < 0 || id->as_int64() > 0x7fffffff)
      fields->Fail(key, "must be a token and its id");
    if (!fields->status().ok()) return fields->status();
    ids->push_back(static_cast<int32_t>(id->as_int64()));
  }
  return around;
}

absl::StatusOr<SpecialTokensAround> Parse(const json::value& v, const IdOf& id_of, int depth) {
  if (v.is_null()) return SpecialTokensAround();
  JsonFields fields(v, kWhere);
  const std::string type = fields.String("type");
  if (!fields.status().ok()) return fields.status();
  if (type == "ByteLevel") return SpecialTokensAround();
  if (type == "TemplateProcessing") return ParseTemplate(&fields, id_of);
  if (type == "BertProcessing" || type == "RobertaProcessing") return ParseBert(&fields);
  if (type != "Sequence" || depth >= 8)
    return absl::InvalidArgumentError(absl::StrCat(kWhere, ": type '", type, "' is not supported"));
  const json::array* list = fields.Array("processors");
  if (list == nullptr) return fields.status();
  SpecialTokensAround all;
  for (const json::value& item : *list) {  // each goes around what the ones before made
    auto around = Parse(item, id_of, depth + 1);
    if (!around.ok()) return around;
    all.prefix.insert(all.prefix.begin(), around->prefix.begin(), around->prefix.end());
    all.suffix.insert(all.suffix.end(), around->suffix.begin(), around->suffix.end());
  }
  return all;
}

}  // namespace

absl::StatusOr<SpecialTokensAround> ParsePostProcessor(const json::value& json, const IdOf& id_of) {
  return Parse(json, id_of, 0);
}

}  // namespace sessa
