#include "server/tokenizer/chat_template_files.h"

#include <algorithm>
#include <boost/json/value.hpp>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/file/json_fields.h"
#include "server/file/json_file.h"
#include "server/tokenizer/files.h"

namespace sessa {
namespace {

namespace json = boost::json;

absl::Status ReadFolder(const std::string& folder, std::vector<ChatTemplateText>* out) {
  std::error_code error;
  std::vector<std::string> names;
  for (std::filesystem::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    if (it->path().extension() == ".jinja") names.push_back(it->path().stem().string());
  }
  std::sort(names.begin(), names.end());
  for (const std::string& name : names) {
    std::string path = absl::StrCat(folder, "/", name, ".jinja");
    auto text = ReadOptionalFile(path);
    if (!text.ok()) return text.status();
    out->push_back({name, std::move(path), *std::move(text)});
  }
  return absl::OkStatus();
}

absl::Status ReadConfig(const std::string& path, std::vector<ChatTemplateText>* out) {
  auto text = ReadOptionalFile(path);
  if (!text.ok() || text->empty()) return text.status();
  auto config = ParseJsonText(*text, path);
  if (!config.ok()) return config.status();
  JsonFields fields(*config, path);
  const json::value* source = fields.Find("chat_template");
  if (source == nullptr) return fields.status();
  if (source->is_string()) {
    out->push_back({"default", path, std::string(source->as_string())});
    return absl::OkStatus();
  }
  if (!source->is_array()) fields.Fail("chat_template", "must be a string or a list of named templates");
  if (!fields.status().ok()) return fields.status();
  for (size_t i = 0; i < source->as_array().size(); ++i) {
    JsonFields named(source->as_array()[i], absl::StrCat(path, ".chat_template[", i, "]"));
    out->push_back({named.String("name"), path, named.String("template")});
    if (!named.status().ok()) return named.status();
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<ChatTemplateText>> ReadChatTemplates(const std::string& dir) {
  std::vector<ChatTemplateText> templates;
  auto file = ReadOptionalFile(dir + "/chat_template.jinja");
  if (!file.ok()) return file.status();
  if (!file->empty()) templates.push_back({"default", dir + "/chat_template.jinja", *std::move(file)});
  absl::Status read = ReadFolder(dir + "/additional_chat_templates", &templates);
  if (read.ok() && templates.empty()) read = ReadConfig(dir + "/tokenizer_config.json", &templates);
  if (!read.ok()) return read;
  return templates;
}

const ChatTemplateText* ChooseChatTemplate(absl::Span<const ChatTemplateText> templates, bool has_tools) {
  const auto find = [templates](const char* name) {
    const auto it = std::find_if(templates.begin(), templates.end(),
                                 [name](const ChatTemplateText& t) { return t.name == name; });
    return it == templates.end() ? nullptr : &*it;
  };
  const ChatTemplateText* found = has_tools ? find("tool_use") : nullptr;
  return found != nullptr ? found : find("default");
}

}  // namespace sessa
