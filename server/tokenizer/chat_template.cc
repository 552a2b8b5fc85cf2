#include "server/tokenizer/chat_template.h"

#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "server/file/read_file.h"
#include "server/jinja/evaluator.h"
#include "server/jinja/from_json.h"
#include "server/tokenizer/chat_template_files.h"
#include "server/tokenizer/files.h"

namespace sessa {
namespace {

namespace json = boost::json;

// What transformers gives a template of a tokenizer's special tokens, where it has them.
constexpr const char* kSpecialTokens[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                          "pad_token", "cls_token", "mask_token"};

absl::Status Annotated(const absl::Status& status, const std::string& where) {
  if (status.ok() || absl::StrContains(status.message(), where)) return status;
  return absl::InvalidArgumentError(absl::StrCat(where, ": ", status.message()));
}

jinja::Value MessageValue(const ChatMessage& m, bool with_parts, jinja::Budget* budget) {
  jinja::DictBuilder message(budget);
  message.Add("role", budget->Text(m.role));
  switch (m.form) {
    case ChatMessage::Content::kText:
      message.Add("content", with_parts && !m.parts.empty() ? jinja::FromJson(m.parts, budget)
                                                            : budget->Text(m.content));
      break;
    case ChatMessage::Content::kNull: message.Add("content", jinja::Value::None()); break;
    case ChatMessage::Content::kAbsent: break;
  }
  for (const auto& [key, value] : m.more)
    message.Put(budget->Text(std::string_view(key.data(), key.size())), jinja::FromJson(value, budget));
  return message.Finish();
}

// transformers passes None where a chat has no tools or documents.
jinja::Value ListOrNone(const json::array& list, jinja::Budget* budget) {
  return list.empty() ? jinja::Value::None() : jinja::FromJson(list, budget);
}

}  // namespace

absl::Status ChatTemplate::Parse(std::string_view source, Parsed* out) const {
  auto tree = jinja::Parse(source);
  if (!tree.ok()) return tree.status();
  out->tree = *std::move(tree);
  // Whether it writes a part's text, and not Python's form of the list.
  Chat chat{{{"user", "", {{{"type", "text"}, {"text", "the text of a part"}}}}}};
  out->reads_parts = true;
  const auto probe = Render(*out, chat, nullptr);
  out->reads_parts = probe.ok() && absl::StrContains(*probe, "the text of a part") &&
                     !absl::StrContains(*probe, "'text': 'the") &&
                     !absl::StrContains(*probe, "\"text\": \"the");
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<ChatTemplate>> ChatTemplate::FromSource(std::string_view source,
                                                                       std::string bos_token,
                                                                       std::string eos_token) {
  std::unique_ptr<ChatTemplate> t(new ChatTemplate);
  if (!bos_token.empty()) t->special_tokens_.emplace_back("bos_token", std::move(bos_token));
  if (!eos_token.empty()) t->special_tokens_.emplace_back("eos_token", std::move(eos_token));
  if (absl::Status parsed = t->Parse(source, &t->default_); !parsed.ok()) return parsed;
  return t;
}

absl::StatusOr<std::unique_ptr<ChatTemplate>> ChatTemplate::Load(const std::string& dir,
                                                                 const std::string& file) {
  if (std::error_code ignored; !std::filesystem::exists(dir + "/tokenizer.json", ignored)) return nullptr;
  auto config = ReadTokenizerConfig(dir);
  if (!config.ok()) return config.status();
  std::unique_ptr<ChatTemplate> t(new ChatTemplate);
  for (const char* name : kSpecialTokens) {
    auto token = TokenOfConfig(*config, name);
    if (!token.ok()) return token.status();
    if (!token->empty()) t->special_tokens_.emplace_back(name, *std::move(token));
  }
  if (!file.empty()) {
    auto source = ReadFile(file);
    if (!source.ok()) return source.status();
    if (absl::Status parsed = t->Parse(*source, &t->default_); !parsed.ok()) return Annotated(parsed, file);
    return t;
  }
  // Clients are told as well, who have no business with the server's paths.
  if (absl::Status parsed = t->ParseOfFolder(dir); !parsed.ok())
    t->status_ = absl::Status(parsed.code(), absl::StrReplaceAll(parsed.message(), {{dir + "/", ""}}));
  return t;
}

absl::Status ChatTemplate::ParseOfFolder(const std::string& dir) {
  auto templates = ReadChatTemplates(dir);
  if (!templates.ok()) return templates.status();
  const ChatTemplateText* chosen = ChooseChatTemplate(*templates, /*has_tools=*/false);
  const ChatTemplateText* of_tools = ChooseChatTemplate(*templates, /*has_tools=*/true);
  absl::Status parsed = chosen != nullptr ? Annotated(Parse(chosen->source, &default_), chosen->where)
                                          : Parse(kDefault, &default_);
  if (parsed.ok() && of_tools != chosen)
    parsed = Annotated(Parse(of_tools->source, &with_tools_), of_tools->where);
  return parsed;
}

absl::StatusOr<std::string> ChatTemplate::Render(const Chat& chat, const std::atomic<bool>* cancelled) const {
  if (!status_.ok()) return absl::InvalidArgumentError(status_.message());
  return Render(!chat.tools.empty() && with_tools_.tree != nullptr ? with_tools_ : default_, chat, cancelled);
}

absl::StatusOr<std::string> ChatTemplate::Render(const Parsed& parsed, const Chat& chat,
                                                 const std::atomic<bool>* cancelled) const {
  jinja::Budget budget(jinja::RenderLimits(), cancelled);
  jinja::ListBuilder messages(&budget);
  for (const ChatMessage& m : chat.messages) messages.Append(MessageValue(m, parsed.reads_parts, &budget));
  std::vector<std::pair<std::string, jinja::Value>> variables;
  for (const auto& [name, token] : special_tokens_) variables.emplace_back(name, budget.Text(token));
  for (const auto& [key, value] : chat.template_kwargs)
    variables.emplace_back(std::string(key), jinja::FromJson(value, &budget));
  variables.emplace_back("messages", messages.Finish());
  variables.emplace_back("tools", ListOrNone(chat.tools, &budget));
  variables.emplace_back("documents", ListOrNone(chat.documents, &budget));
  variables.emplace_back("add_generation_prompt", jinja::Value(chat.add_generation_prompt));
  return jinja::Render(*parsed.tree, std::move(variables), &budget);
}

}  // namespace sessa
