#include "server/tokenizer/chat_template.h"

#include <boost/json/value.hpp>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/file/read_file.h"
#include "server/jinja/evaluator.h"
#include "server/jinja/from_json.h"
#include "server/tokenizer/files.h"

namespace sessa {
namespace {

namespace json = boost::json;

// chat_template of tokenizer_config.json; empty when there is none.
absl::StatusOr<std::string> SourceOf(const json::value& config) {
  const json::value* source = config.is_object() ? config.as_object().if_contains("chat_template") : nullptr;
  if (source == nullptr || source->is_null()) return "";
  if (source->is_string()) return std::string(source->as_string());
  if (source->is_array()) {
    for (const json::value& item : source->as_array()) {
      const json::object* named = item.if_object();
      const json::value* name = named != nullptr ? named->if_contains("name") : nullptr;
      const json::value* text = named != nullptr ? named->if_contains("template") : nullptr;
      if (name != nullptr && name->is_string() && name->as_string() == "default" && text != nullptr &&
          text->is_string()) {
        return std::string(text->as_string());
      }
    }
  }
  return absl::InvalidArgumentError(
      "tokenizer_config.json.chat_template: must be a string, or a list with one named default");
}

// The checkpoint's own template; kDefault when it has none.
absl::StatusOr<std::string> SourceIn(const std::string& dir, const json::value& config) {
  auto file = ReadOptionalFile(dir + "/chat_template.jinja");
  if (!file.ok() || !file->empty()) return file;
  auto of_config = SourceOf(config);
  if (!of_config.ok() || !of_config->empty()) return of_config;
  return std::string(ChatTemplate::kDefault);
}

jinja::Value MessageValue(const ChatMessage& m, bool with_parts, jinja::Budget* budget) {
  jinja::DictBuilder message(budget);
  message.Add("role", budget->Text(m.role));
  message.Add("content",
              with_parts && !m.parts.empty() ? jinja::FromJson(m.parts, budget) : budget->Text(m.content));
  for (const auto& [key, value] : m.more)
    message.Put(budget->Text(std::string_view(key.data(), key.size())), jinja::FromJson(value, budget));
  return message.Finish();
}

// Hugging Face passes None where a chat has no tools or documents.
jinja::Value ListOrNone(const json::array& list, jinja::Budget* budget) {
  return list.empty() ? jinja::Value::None() : jinja::FromJson(list, budget);
}

}  // namespace

absl::StatusOr<std::unique_ptr<ChatTemplate>> ChatTemplate::FromSource(std::string_view source,
                                                                       std::string bos_token,
                                                                       std::string eos_token) {
  auto parsed = jinja::Parse(source);
  if (!parsed.ok()) return parsed.status();
  std::unique_ptr<ChatTemplate> t(new ChatTemplate);
  t->template_ = *std::move(parsed);
  t->bos_token_ = std::move(bos_token);
  t->eos_token_ = std::move(eos_token);
  // Whether it writes a part's text, and not Python's form of the list.
  const json::array parts = {{{"type", "text"}, {"text", "a part's text"}}};
  t->reads_parts_ = true;
  const auto probe = t->Render({{{"user", "", parts}}});
  t->reads_parts_ = probe.ok() && probe->find("a part's text") != std::string::npos &&
                    probe->find("type") == std::string::npos;
  return t;
}

absl::StatusOr<std::unique_ptr<ChatTemplate>> ChatTemplate::Load(const std::string& dir,
                                                                 const std::string& file) {
  if (std::error_code ignored; !std::filesystem::exists(dir + "/tokenizer.json", ignored)) return nullptr;
  json::value config = json::object();
  std::string bos, eos;
  auto text = ReadOptionalFile(dir + "/tokenizer_config.json");
  if (!text.ok()) return text.status();
  if (!text->empty()) {
    auto parsed = ParseJsonFile(*text, dir + "/tokenizer_config.json");
    if (!parsed.ok()) return parsed.status();
    config = *std::move(parsed);
    for (auto [key, token] : {std::pair{"bos_token", &bos}, {"eos_token", &eos}}) {
      auto name = TokenOfConfig(config, key);
      if (!name.ok()) return name.status();
      *token = *std::move(name);
    }
  }
  auto source = file.empty() ? SourceIn(dir, config) : ReadFile(file);
  absl::StatusOr<std::unique_ptr<ChatTemplate>> t = source.status();
  if (source.ok()) t = FromSource(*source, std::move(bos), std::move(eos));
  if (t.ok()) return t;
  if (!file.empty()) return absl::InvalidArgumentError(absl::StrCat(file, ": ", t.status().message()));
  std::unique_ptr<ChatTemplate> unreadable(new ChatTemplate);
  unreadable->status_ = absl::InvalidArgumentError(t.status().message());
  return unreadable;
}

absl::StatusOr<std::string> ChatTemplate::Render(const Chat& chat, const std::atomic<bool>* cancelled) const {
  if (!status_.ok()) return status_;
  jinja::Budget budget(jinja::RenderLimits(), cancelled);
  jinja::ListBuilder messages(&budget);
  for (const ChatMessage& m : chat.messages) messages.Append(MessageValue(m, reads_parts_, &budget));
  std::vector<std::pair<std::string, jinja::Value>> variables;
  if (!bos_token_.empty()) variables.emplace_back("bos_token", budget.Text(bos_token_));
  if (!eos_token_.empty()) variables.emplace_back("eos_token", budget.Text(eos_token_));
  for (const auto& [key, value] : chat.template_kwargs)
    variables.emplace_back(std::string(key), jinja::FromJson(value, &budget));
  variables.emplace_back("messages", messages.Finish());
  variables.emplace_back("tools", ListOrNone(chat.tools, &budget));
  variables.emplace_back("documents", ListOrNone(chat.documents, &budget));
  variables.emplace_back("add_generation_prompt", jinja::Value(chat.add_generation_prompt));
  return jinja::Render(*template_, std::move(variables), &budget);
}

}  // namespace sessa
