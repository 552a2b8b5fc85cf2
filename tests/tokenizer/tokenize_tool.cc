// For compare_test.py: reads one JSON value a line on stdin and answers with one a line.
//   sessa-tokenize DIR    "text" -> {"ids", "special", "decoded", "skipped", "streamed"}
//                         [ids] -> {"decoded", "skipped", "streamed", ...}
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <iostream>
#include <string>
#include <vector>

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

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: sessa-tokenize DIR\n";
    return 2;
  }
  const auto tokenizer = sessa::Tokenizer::Load(argv[1]);
  if (!tokenizer.ok() || *tokenizer == nullptr) {
    std::cerr << tokenizer.status() << "\n";
    return 1;
  }
  for (std::string line; std::getline(std::cin, line);)
    std::cout << json::serialize(Answer(**tokenizer, json::parse(line))) << "\n";
}
