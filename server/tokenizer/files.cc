#include "server/tokenizer/files.h"

#include <boost/json/parse.hpp>
#include <fstream>
#include <sstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/tokenizer/json_fields.h"

namespace sessa {

constexpr size_t kMaxBytes = 256 << 20;

absl::StatusOr<std::string> ReadTextFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::NotFoundError(path);
  std::stringstream text;
  text << file.rdbuf();
  return std::move(text).str();
}

absl::StatusOr<boost::json::value> ParseJsonFile(std::string_view text, const std::string& name) {
  if (text.size() > kMaxBytes)
    return absl::InvalidArgumentError(absl::StrCat(name, ": larger than ", kMaxBytes, " bytes"));
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
