// Which texts are a checkpoint's chat templates, chosen as transformers chooses them: chat_template.jinja and
// additional_chat_templates/NAME.jinja where there are any, else chat_template of tokenizer_config.json, a
// string or a list of named ones. Nothing is parsed here.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace sessa {

struct ChatTemplateText {
  std::string name;    // "default", "tool_use", ...
  std::string where;   // file, for errors and logs
  std::string source;  // Jinja
};

// Empty when the folder has none. Errors name the file: one that is there and cannot be read, or is no
// template.
absl::StatusOr<std::vector<ChatTemplateText>> ReadChatTemplates(const std::string& dir);

// The one for a chat: "tool_use" where there is one and tools are given, else "default"; a template that is
// alone in chat_template.jinja or as a string is the default. Null when there is neither.
const ChatTemplateText* ChooseChatTemplate(absl::Span<const ChatTemplateText> templates, bool has_tools);

}  // namespace sessa
