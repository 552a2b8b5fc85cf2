#include "server/tokenizer/chat_template.h"

#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/tokenizer/chat_template_files.h"
#include "server/tokenizer/files.h"
#include "server/tokenizer/jinja_eval.h"
#include "server/tokenizer/jinja_parser.h"

namespace sessa {

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
  auto config = ReadTokenizerConfig(dir);
  if (!config.ok()) return config.status();
  auto bos = TokenOfConfig(*config, "bos_token"), eos = TokenOfConfig(*config, "eos_token");
  if (!bos.ok()) return bos.status();
  if (!eos.ok()) return eos.status();
  auto templates = ReadChatTemplates(dir);
  if (!templates.ok()) return templates.status();
  const ChatTemplateText* chosen = ChooseChatTemplate(*templates, /*has_tools=*/false);
  auto parsed = FromSource(chosen != nullptr ? chosen->source : std::string(kDefault), *std::move(bos),
                           *std::move(eos));
  if (parsed.ok() || chosen == nullptr) return parsed;
  return absl::InvalidArgumentError(absl::StrCat(chosen->where, ": ", parsed.status().message()));
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
