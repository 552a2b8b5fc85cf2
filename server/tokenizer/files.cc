#include "server/tokenizer/files.h"

#include <boost/json/parse.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/file/read_file.h"
#include "server/tokenizer/json_fields.h"

namespace sessa {

absl::StatusOr<std::string> ReadOptionalFile(const std::string& path) {
  absl::StatusOr<std::string> text = ReadFile(path);
  if (absl::IsNotFound(text.status())) return "";
  if (text.ok() && text->empty()) return absl::InvalidArgumentError(absl::StrCat(path, ": is empty"));
  return text;
}

absl::StatusOr<boost::json::value> ParseJsonFile(std::string_view text, const std::string& name) {
  boost::system::error_code error;
  boost::json::value value = boost::json::parse(boost::json::string_view(text.data(), text.size()), error);
  if (error) return absl::InvalidArgumentError(absl::StrCat(name, ": ", error.message()));
  return value;
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
