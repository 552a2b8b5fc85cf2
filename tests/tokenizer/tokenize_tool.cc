// For compare_test.py: reads one JSON value a line on stdin and answers with one a line.
//   sessa-tokenize DIR            "text" -> {"ids", "special", "decoded", "skipped", "streamed"}; [ids] ->
//   {"decoded", ...} sessa-tokenize --chat FILE    {"messages", "add_generation_prompt", "bos_token",
//   "eos_token"} -> "text" or {"error"}
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <iostream>
#include <string>
#include <vector>

#include "server/file/read_file.h"
#include "server/tokenizer/chat_template.h"
#include "server/tokenizer/detokenizer.h"
#include "server/tokenizer/files.h"
#include "server/tokenizer/tokenizer.h"

namespace json = boost::json;

namespace {

json::array ToJson(const std::vector<int32_t>& ids) { return json::array(ids.begin(), ids.end()); }

std::string Stream(const sessa::Tokenizer& tokenizer, const std::vector<int32_t>& ids, bool skip_special) {
  sessa::Detokenizer detokenizer(&tokenizer, skip_special);
  std::string text;
  for (int32_t id : ids) text += detokenizer.Push(id);
  return text + detokenizer.Flush();
}

json::value Answer(const sessa::Tokenizer& tokenizer, const json::value& line) {
  json::object out;
  std::vector<int32_t> ids;
  if (line.is_string()) {
    const std::string text(line.as_string());
    const auto plain = tokenizer.Encode(text, false), special = tokenizer.Encode(text, true);
    if (!plain.ok() || !special.ok()) return json::object{{"error", std::string(plain.status().message())}};
    ids = *plain;
    out["ids"] = ToJson(ids);
    out["special"] = ToJson(*special);
  } else {
    for (const json::value& id : line.as_array()) ids.push_back(static_cast<int32_t>(id.as_int64()));
  }
  out["decoded"] = *tokenizer.Decode(ids, false);
  out["skipped"] = *tokenizer.Decode(ids, true);
  out["streamed"] = Stream(tokenizer, ids, false);
  out["streamed_skipped"] = Stream(tokenizer, ids, true);
  return out;
}

json::value Render(const std::string& source, const json::value& line) {
  sessa::Chat conversation;
  for (const json::value& m : line.at("messages").as_array()) {
    conversation.messages.push_back(
        {std::string(m.at("role").as_string()), std::string(m.at("content").as_string())});
  }
  conversation.add_generation_prompt = line.at("add_generation_prompt").as_bool();
  const auto chat = sessa::ChatTemplate::FromSource(source, std::string(line.at("bos_token").as_string()),
                                                    std::string(line.at("eos_token").as_string()));
  if (!chat.ok()) return json::object{{"error", std::string(chat.status().message())}};
  const auto text = (*chat)->Render(conversation);
  if (!text.ok()) return json::object{{"error", std::string(text.status().message())}};
  return json::value(*text);
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> args(argv + 1, argv + argc);
  std::unique_ptr<sessa::Tokenizer> tokenizer;
  std::string source;
  if (args.size() == 2 && args[0] == "--chat") {
    source = *sessa::ReadFile(args[1]);
  } else if (args.size() == 1) {
    auto loaded = sessa::Tokenizer::Load(args[0]);
    if (!loaded.ok() || *loaded == nullptr) {
      std::cerr << loaded.status() << "\n";
      return 1;
    }
    tokenizer = *std::move(loaded);
  } else {
    std::cerr << "usage: sessa-tokenize DIR | --chat FILE\n";
    return 2;
  }
  for (std::string line; std::getline(std::cin, line);) {
    const json::value value = json::parse(line);
    std::cout << json::serialize(tokenizer != nullptr ? Answer(*tokenizer, value) : Render(source, value))
              << "\n";
  }
}
