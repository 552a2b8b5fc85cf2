// A chat as a client sent it, for the checkpoint's template: texts, and JSON where the template alone knows
// what to make of it. Front ends fill it and have checked its form; templates read it.
#pragma once

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <string>
#include <vector>

namespace sessa {

struct ChatMessage {
  // What a template sees as `content`: text or parts, None, or nothing at all (undefined).
  enum class Content { kText, kNull, kAbsent };

  std::string role;
  std::string content;            // of text parts: joined; empty unless kText
  boost::json::array parts = {};  // {"type": "text", "text": ...}, where the content came so; else empty
  // The message's other members: name, tool_call_id, tool_calls (whose arguments are objects, not the JSON
  // text that OpenAI's API has for them, as templates want it), and whatever else a template may read.
  boost::json::object more = {};
  Content form = Content::kText;  // the others beside tool calls alone
};

struct Chat {
  std::vector<ChatMessage> messages = {};
  bool add_generation_prompt = true;
  boost::json::array tools = {}, documents = {};  // empty: none
  // Further variables of the template; none has the name of a field above.
  boost::json::object template_kwargs = {};
};

}  // namespace sessa
