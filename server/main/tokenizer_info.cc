// See tokenizer_info.h.
#include "server/main/tokenizer_info.h"

#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>

#include "server/file/json_file.h"

namespace sessa {

std::string TokenizerInfo(const std::string& model_dir, const std::string& chat_template_file) {
  boost::json::object info;
  const std::string path = model_dir + "/tokenizer_config.json";
  if (auto text = ReadOptionalFile(path); text.ok() && !text->empty()) {
    auto config = ParseJsonText(*text, path);
    if (config.ok() && config->is_object()) info = config->as_object();
  }
  info.emplace("tokenizer_class", "PreTrainedTokenizerFast");
  const std::string file =
      chat_template_file.empty() ? model_dir + "/chat_template.jinja" : chat_template_file;
  if (auto source = ReadOptionalFile(file); source.ok() && !source->empty()) info["chat_template"] = *source;
  return boost::json::serialize(info);
}

}  // namespace sessa
