// See json_file.h.
#include "server/file/json_file.h"

#include <boost/json/parse.hpp>

#include "absl/strings/str_cat.h"
#include "server/file/read_file.h"

namespace sessa {

absl::StatusOr<boost::json::value> ParseJsonText(std::string_view text, std::string_view name) {
  boost::system::error_code error;
  boost::json::value value = boost::json::parse(boost::json::string_view(text.data(), text.size()), error);
  if (!error) return value;
  return absl::InvalidArgumentError(
      absl::StrCat(std::string(name), name.empty() ? "" : ": ", "not JSON: ", error.message()));
}

absl::StatusOr<std::string> ReadOptionalFile(const std::string& path) {
  absl::StatusOr<std::string> text = ReadFile(path);
  if (absl::IsNotFound(text.status())) return "";
  if (text.ok() && text->empty()) return absl::InvalidArgumentError(absl::StrCat(path, ": is empty"));
  return text;
}

}  // namespace sessa
