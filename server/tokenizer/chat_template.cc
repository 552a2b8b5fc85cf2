#include "server/tokenizer/chat_template.h"

#include <boost/json/value.hpp>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/tokenizer/files.h"
#include "server/tokenizer/jinja_eval.h"
#include "server/tokenizer/jinja_parser.h"

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

}  // namespace

absl::StatusOr<std::unique_ptr<ChatTemplate>> ChatTemplate::FromSource(std::string_view source,
                                                                       std::string bos_token,
                                                                       std::string eos_token) {
  auto statements = jinja::Parse(source);
  if (!statements.ok()) return statements.status();
  std::unique_ptr<ChatTemplate> t(new ChatTemplate);
  t->statements_ = *std::move(statements);
  t->bos_token_ = std::move(bos_token);
  t->eos_token_ = std::move(eos_token);
  return t;
}

absl::StatusOr<std::unique_ptr<ChatTemplate>> ChatTemplate::Load(const std::string& dir) {
  if (std::error_code ignored; !std::filesystem::exists(dir + "/tokenizer.json", ignored)) return nullptr;
  std::string bos, eos, source;
  auto text = ReadOptionalFile(dir + "/tokenizer_config.json");
  if (!text.ok()) return text.status();
  if (!text->empty()) {
    auto config = ParseJsonFile(*text, dir + "/tokenizer_config.json");
    if (!config.ok()) return config.status();
    for (auto [key, token] : {std::pair{"bos_token", &bos}, {"eos_token", &eos}}) {
      auto name = TokenOfConfig(*config, key);
      if (!name.ok()) return name.status();
      *token = *std::move(name);
    }
    auto of_config = SourceOf(*config);
    if (!of_config.ok()) return of_config.status();
    source = *std::move(of_config);
  }
  auto file = ReadOptionalFile(dir + "/chat_template.jinja");
  if (!file.ok()) return file.status();
  if (!file->empty()) source = *std::move(file);
  return FromSource(source.empty() ? std::string(kDefault) : source, std::move(bos), std::move(eos));
}

absl::StatusOr<std::string> ChatTemplate::Render(const Chat& chat, const std::atomic<bool>* cancelled) const {
  jinja::Budget budget(jinja::RenderLimits(), cancelled);
  jinja::ListBuilder list(&budget);
  for (const ChatMessage& m : chat.messages) {
    jinja::DictBuilder message(&budget);
    message.Add("role", budget.Text(m.role));
    message.Add("content", budget.Text(m.content));
    list.Append(message.Finish());
  }
  return jinja::Evaluate(statements_,
                         {{"messages", list.Finish()},
                          {"add_generation_prompt", jinja::Value(chat.add_generation_prompt)},
                          {"bos_token", budget.Text(bos_token_)},
                          {"eos_token", budget.Text(eos_token_)}},
                         &budget);
}

}  // namespace sessa
