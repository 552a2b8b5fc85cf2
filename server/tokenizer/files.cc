#include "server/tokenizer/files.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/file/json_fields.h"
#include "server/file/json_file.h"

namespace sessa {
namespace {

namespace json = boost::json;

// An object; empty when there is no such file.
absl::StatusOr<json::value> ReadOptionalObject(const std::string& path) {
  auto text = ReadOptionalFile(path);
  if (!text.ok()) return text.status();
  if (text->empty()) return json::value(json::object());
  auto value = ParseJsonText(*text, path);
  if (value.ok() && !value->is_object())
    return absl::InvalidArgumentError(absl::StrCat(path, ": must be an object"));
  return value;
}

}  // namespace

absl::StatusOr<json::value> ReadTokenizerConfig(const std::string& dir) {
  auto config = ReadOptionalObject(dir + "/tokenizer_config.json");
  if (!config.ok()) return config;
  json::object& object = config->as_object();
  if (object.contains("added_tokens_decoder")) return config;
  auto special = ReadOptionalObject(dir + "/special_tokens_map.json");
  if (!special.ok()) return special;
  for (const auto& [key, value] : special->as_object()) object[key] = value;
  const std::string added_path = dir + "/added_tokens.json";
  auto added = ReadOptionalObject(added_path);
  if (!added.ok()) return added;
  if (added->as_object().empty()) return config;
  json::object decoder;
  for (const auto& [token, id] : added->as_object()) {
    if (!id.is_int64())
      return absl::InvalidArgumentError(
          absl::StrCat(added_path, ": '", std::string(token), "' has no integer id"));
    decoder[absl::StrCat(id.as_int64())] = json::object{{"content", token}};
  }
  object["added_tokens_decoder"] = std::move(decoder);
  return config;
}

absl::StatusOr<std::string> TokenOfConfig(const boost::json::value& config, const char* key) {
  JsonFields fields(config, "tokenizer_config.json");
  const boost::json::value* v = fields.Find(key);
  if (v == nullptr) return fields.status().ok() ? absl::StatusOr<std::string>("") : fields.status();
  if (v->is_string()) return std::string(v->as_string());
  JsonFields token(*v, absl::StrCat("tokenizer_config.json.", key));
  std::string content = token.String("content");
  if (!token.status().ok()) return token.status();
  return content;
}

}  // namespace sessa
