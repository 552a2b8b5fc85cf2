// Chat messages to the text that a model was trained on, by the checkpoint's own template: Jinja2, set up as
// Hugging Face's transformers does (server/jinja). Constant after loading, thread-safe.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "server/jinja/parser.h"
#include "server/tokenizer/chat.h"

namespace sessa {

class ChatTemplate {
 public:
  // `file`, or what chat_template_files.h chooses in DIR, or kDefault. Null without tokenizer.json. A
  // template of the checkpoint that cannot be read is no error: status() has the reason, and so has everyone
  // who renders. `file`, when it is not empty, must be readable. Errors name the file, and the line where
  // there is one.
  static absl::StatusOr<std::unique_ptr<ChatTemplate>> Load(const std::string& dir,
                                                            const std::string& file = "");
  static absl::StatusOr<std::unique_ptr<ChatTemplate>> FromSource(std::string_view source,
                                                                  std::string bos_token,
                                                                  std::string eos_token);

  // The template of a checkpoint that has none: "role: content" lines, then "assistant:".
  static constexpr std::string_view kDefault =
      "{{ bos_token }}{% for message in messages %}{{ message.role }}: {{ message.content or '' }}\n{% "
      "endfor %}"
      "{% if add_generation_prompt %}assistant:{% endif %}";

  // Whether chats can be rendered; INVALID_ARGUMENT names the template's file, without its folder, and line.
  const absl::Status& status() const { return status_; }

  // INVALID_ARGUMENT: status(), what the template raised, where it failed, or which of the limits in
  // server/jinja/budget.h it reached. CANCELLED soon after `cancelled`, which may be null, has become true.
  absl::StatusOr<std::string> Render(const Chat& chat, const std::atomic<bool>* cancelled = nullptr) const;

 private:
  struct Parsed {
    std::unique_ptr<const jinja::Template> tree;
    // A content that came in parts is given as such to a template that knows how to write them; others get
    // their texts joined.
    bool reads_parts = false;
  };

  ChatTemplate() = default;
  absl::Status Parse(std::string_view source, Parsed* out) const;
  absl::Status ParseOfFolder(const std::string& dir);
  absl::StatusOr<std::string> Render(const Parsed& parsed, const Chat& chat,
                                     const std::atomic<bool>* cancelled) const;

  absl::Status status_;
  Parsed default_;     // without a tree unless status_ is OK
  Parsed with_tools_;  // for chats that bring tools; without a tree: the default
  std::vector<std::pair<std::string, std::string>> special_tokens_;  // variables: bos_token and so on
};

}  // namespace sessa
