// Reads the keys that ModelConfig has; others (torch_dtype, architectures) are for other programs.
#include "server/checkpoint/config_json.h"

#include <boost/json.hpp>
#include <cstdint>
#include <limits>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace sessa {
namespace {

namespace json = boost::json;

absl::Status Bad(absl::string_view key, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(key, " ", what));
}

bool ToInt(const json::value& v, int32_t* out) {
  const int64_t* i = v.if_int64();
  if (i == nullptr || *i < std::numeric_limits<int32_t>::min() || *i > std::numeric_limits<int32_t>::max())
    return false;
  *out = static_cast<int32_t>(*i);
  return true;
}

// Collects the first error, so that the list of keys below reads as a list.
class Reader {
 public:
  explicit Reader(const json::object& object) : object_(object) {}

  void Int(const char* key, int32_t* out, bool required) {
    const json::value* v = Find(key, required);
    if (v != nullptr && !ToInt(*v, out)) status_.Update(Bad(key, "is not an integer of 32 bits"));
  }
  void Float(const char* key, float* out) {
    const json::value* v = Find(key, false);
    if (v == nullptr) return;
    if (!v->is_number()) return status_.Update(Bad(key, "is not a number"));
    const double d = v->is_double() ? v->get_double() : v->is_int64() ? v->get_int64() : v->get_uint64();
    // A conversion out of float's range is undefined.
    if (!(d >= -std::numeric_limits<float>::max() && d <= std::numeric_limits<float>::max())) {
      return status_.Update(Bad(key, "is not a finite float"));
    }
    *out = static_cast<float>(d);
  }
  void Bool(const char* key, bool* out) {
    const json::value* v = Find(key, false);
    if (v == nullptr) return;
    if (!v->is_bool()) return status_.Update(Bad(key, "is not true or false"));
    *out = v->get_bool();
  }
  // One id or a list of ids.
  void Ids(const char* key, std::vector<int32_t>* out) {
    const json::value* v = Find(key, false);
    if (v == nullptr) return;
    const auto add = [&](const json::value& item) {
      int32_t id = 0;
      if (!ToInt(item, &id)) return status_.Update(Bad(key, "is not an integer or a list of integers"));
      out->push_back(id);
    };
    if (const json::array* list = v->if_array()) {
      for (const json::value& item : *list) add(item);
    } else {
      add(*v);
    }
  }
  const absl::Status& status() const { return status_; }

 private:
  // nullptr when the key is absent or null.
  const json::value* Find(const char* key, bool required) {
    const json::value* v = object_.if_contains(key);
    if (v != nullptr && !v->is_null()) return v;
    if (required) status_.Update(Bad(key, "is missing"));
    return nullptr;
  }

  const json::object& object_;
  absl::Status status_;
};

}  // namespace

absl::StatusOr<ModelConfig> ParseConfigJson(absl::string_view text) {
  json::error_code ec;
  const json::value root = json::parse({text.data(), text.size()}, ec);
  if (ec) return absl::InvalidArgumentError(absl::StrCat("not JSON: ", ec.message()));
  const json::object* object = root.if_object();
  if (object == nullptr) return absl::InvalidArgumentError("not a JSON object");
  const json::value* type = object->if_contains("model_type");
  if (type == nullptr || !type->is_string() || type->get_string() != "sessa") {
    return Bad("model_type", "must be \"sessa\"");
  }
  ModelConfig config;
  Reader read(*object);
  read.Int("vocab_size", &config.vocab_size, true);
  read.Int("hidden_size", &config.hidden_size, true);
  read.Int("num_hidden_layers", &config.num_layers, true);
  read.Int("num_attention_heads", &config.num_heads, true);
  config.num_kv_heads = config.num_heads;
  read.Int("num_key_value_heads", &config.num_kv_heads, false);
  read.Float("layer_norm_eps", &config.layer_norm_eps);
  read.Bool("use_forward_rope", &config.use_forward_rope);
  read.Float("rope_theta", &config.rope_theta);
  read.Float("gamma_max", &config.gamma_max);
  read.Bool("tie_word_embeddings", &config.tie_word_embeddings);
  read.Int("max_position_embeddings", &config.max_position_embeddings, false);
  read.Int("bos_token_id", &config.bos_token_id, false);
  read.Ids("eos_token_id", &config.eos_token_ids);
  absl::Status status = read.status();
  status.Update(config.Validate());
  if (!status.ok()) return status;
  return config;
}

}  // namespace sessa
