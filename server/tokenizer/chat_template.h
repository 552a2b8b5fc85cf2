// Chat messages to the text that a model was trained on, by the checkpoint's own Jinja template (a bounded
// subset: what published chat templates use; see jinja_parser.h). Constant after loading, thread-safe.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "server/tokenizer/chat.h"
#include "server/tokenizer/jinja_ast.h"

namespace sessa {

class ChatTemplate {
 public:
  // What chat_template_files.h chooses in DIR, or kDefault. Null without tokenizer.json. INVALID_ARGUMENT
  // names file, line and what is wrong.
  static absl::StatusOr<std::unique_ptr<ChatTemplate>> Load(const std::string& dir);
  static absl::StatusOr<std::unique_ptr<ChatTemplate>> FromSource(std::string_view source,
                                                                  std::string bos_token,
                                                                  std::string eos_token);

  // Of a checkpoint without a template: "role: content" lines, then "assistant:".
  static constexpr std::string_view kDefault =
      "{{ bos_token }}{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
      "{% if add_generation_prompt %}assistant:{% endif %}";

  // INVALID_ARGUMENT: what the template raised, where it failed, or which of the limits in jinja_budget.h it
  // reached. CANCELLED soon after `cancelled`, which may be null, has become true.
  absl::StatusOr<std::string> Render(const Chat& chat, const std::atomic<bool>* cancelled = nullptr) const;

 private:
  ChatTemplate() = default;
  std::vector<jinja::Statement> statements_;
  std::string bos_token_, eos_token_;
};

}  // namespace sessa
