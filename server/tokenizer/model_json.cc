#include "server/tokenizer/model_json.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "server/file/json_fields.h"
#include "server/tokenizer/bpe.h"
#include "server/tokenizer/unigram.h"
#include "server/tokenizer/word_piece.h"

namespace sessa {
namespace {

namespace json = boost::json;
using Model = absl::StatusOr<std::unique_ptr<TokenModel>>;

constexpr char kWhere[] = "tokenizer.json.model";

template <class... Parts>
absl::Status Bad(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat(kWhere, parts...));
}

// {"token": id}
absl::StatusOr<Vocabulary> ParseVocabulary(JsonFields* model) {
  const json::object* object = model->Object("vocab");
  if (object == nullptr) return model->status();
  Vocabulary vocabulary;
  vocabulary.reserve(object->size());
  absl::flat_hash_set<int64_t> ids;
  ids.reserve(object->size());
  for (const auto& [key, value] : *object) {
    const std::string token(key);
    if (!value.is_int64()) return Bad(".vocab: '", token, "' has no integer id");
    const int64_t id = value.as_int64();
    if (id < 0 || id > kMaxTokenId)
      return Bad(".vocab: id ", id, " of '", token, "' is not in [0, ", kMaxTokenId, "]");
    if (!ids.insert(id).second) return Bad(".vocab: id ", id, " has two tokens");
    vocabulary[token] = static_cast<int32_t>(id);
  }
  return vocabulary;
}

// The id of the "unk_token"; none without one.
absl::StatusOr<std::optional<int32_t>> UnknownOf(JsonFields* model, const Vocabulary& vocabulary,
                                                 const std::string& fallback) {
  const std::string token = model->String("unk_token", fallback);
  if (!model->status().ok()) return model->status();
  const auto it = vocabulary.find(token);
  if (token.empty() || it == vocabulary.end()) return std::optional<int32_t>();
  return std::optional<int32_t>(it->second);
}

// "left right", or a list of the two.
bool ParseMerge(const json::value& merge, std::string* left, std::string* right) {
  if (merge.is_string()) {
    const std::string_view pair(merge.as_string());
    const size_t space = pair.find(' ');
    if (space == pair.npos) return false;
    *left = std::string(pair.substr(0, space)), *right = std::string(pair.substr(space + 1));
    return true;
  }
  const json::array* pair = merge.if_array();
  if (pair == nullptr || pair->size() != 2 || !(*pair)[0].is_string() || !(*pair)[1].is_string())
    return false;
  *left = std::string((*pair)[0].as_string()), *right = std::string((*pair)[1].as_string());
  return true;
}

Model ParseBpe(JsonFields* model) {
  const json::value* dropout = model->Find("dropout");
  if (dropout != nullptr && (!dropout->is_number() || dropout->to_number<double>() != 0))
    model->Fail("dropout", "above 0 is not supported: it makes a text's tokens random");
  BpeOptions options;
  options.prefix = model->String("continuing_subword_prefix", "");
  options.suffix = model->String("end_of_word_suffix", "");
  options.fuse_unknown = model->Bool("fuse_unk", false);
  options.byte_fallback = model->Bool("byte_fallback", false);
  options.ignore_merges = model->Bool("ignore_merges", false);
  const json::array* merges = model->Array("merges");
  auto vocabulary = ParseVocabulary(model);
  if (!vocabulary.ok()) return vocabulary.status();
  auto unknown = UnknownOf(model, *vocabulary, "");
  if (!unknown.ok()) return unknown.status();
  options.unknown = *unknown;
  const auto id_of = [&](const std::string& token) {
    const auto it = vocabulary->find(token);
    return it == vocabulary->end() ? -1 : it->second;
  };
  std::vector<Bpe::Merge> list;
  list.reserve(merges->size());
  for (size_t i = 0; i < merges->size(); ++i) {
    std::string left, right;
    const bool is_pair = ParseMerge((*merges)[i], &left, &right) && right.size() >= options.prefix.size();
    const std::string both = is_pair ? left + right.substr(options.prefix.size()) : "";
    if (!is_pair || id_of(left) < 0 || id_of(right) < 0 || id_of(both) < 0)
      return Bad(".merges[", i, "]: must be a pair of tokens whose union is a token");
    list.push_back({id_of(left), id_of(right), id_of(both)});
  }
  const bool knows_unknown = options.unknown.has_value() || model->String("unk_token", "").empty();
  auto bpe = std::make_unique<Bpe>(*std::move(vocabulary), list, std::move(options));
  // Where every text has tokens it does not matter.
  if (!knows_unknown && !bpe->IsLossless(true)) return Bad(".unk_token: is no token");
  return bpe;
}

Model ParseWordPiece(JsonFields* model) {
  const std::string prefix = model->String("continuing_subword_prefix", "##");
  const int32_t max_characters = model->Int("max_input_chars_per_word", 100);
  auto vocabulary = ParseVocabulary(model);
  if (!vocabulary.ok()) return vocabulary.status();
  auto unknown = UnknownOf(model, *vocabulary, "[UNK]");
  if (!unknown.ok()) return unknown.status();
  return std::make_unique<WordPiece>(*std::move(vocabulary), *unknown, prefix, max_characters);
}

Model ParseWordLevel(JsonFields* model) {
  auto vocabulary = ParseVocabulary(model);
  if (!vocabulary.ok()) return vocabulary.status();
  auto unknown = UnknownOf(model, *vocabulary, "<unk>");
  if (!unknown.ok()) return unknown.status();
  return std::make_unique<WordLevel>(*std::move(vocabulary), *unknown);
}

// [["token", score], ...], ids in order.
Model ParseUnigram(JsonFields* model) {
  const json::array* list = model->Array("vocab");
  const bool byte_fallback = model->Bool("byte_fallback", false);
  std::optional<int32_t> unknown;
  if (model->Find("unk_id") != nullptr) unknown = model->Id("unk_id");
  if (!model->status().ok()) return model->status();
  if (list->size() > kMaxTokenId) return Bad(".vocab: has more than ", kMaxTokenId, " tokens");
  if (unknown.has_value() && *unknown >= static_cast<int64_t>(list->size()))
    return Bad(".unk_id: is no token");
  std::vector<std::pair<std::string, double>> tokens;
  tokens.reserve(list->size());
  for (size_t i = 0; i < list->size(); ++i) {
    const json::array* pair = (*list)[i].if_array();
    if (pair == nullptr || pair->size() != 2 || !(*pair)[0].is_string() || !(*pair)[1].is_number())
      return Bad(".vocab[", i, "]: must be a token and its score");
    tokens.emplace_back((*pair)[0].as_string(), (*pair)[1].to_number<double>());
  }
  return std::make_unique<Unigram>(tokens, unknown, byte_fallback);
}

// Of files that older versions wrote, which do not say.
std::string GuessType(const JsonFields& model) {
  if (model.Find("merges") != nullptr) return "BPE";
  if (model.Find("vocab") != nullptr && model.Find("vocab")->is_array()) return "Unigram";
  return model.Find("max_input_chars_per_word") != nullptr ? "WordPiece" : "WordLevel";
}

}  // namespace

Model ParseTokenModel(const json::value& json) {
  JsonFields model(json, kWhere);
  const std::string type = model.String("type", GuessType(model));
  if (!model.status().ok()) return model.status();
  Model parsed = type == "BPE"         ? ParseBpe(&model)
                 : type == "WordPiece" ? ParseWordPiece(&model)
                 : type == "WordLevel" ? ParseWordLevel(&model)
                 : type == "Unigram"   ? ParseUnigram(&model)
                                       : Bad(".type: '", type, "' is not supported");
  if (!parsed.ok()) return parsed;
  if (!model.status().ok()) return model.status();
  return parsed;
}

}  // namespace sessa
