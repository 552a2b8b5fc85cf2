// See json_fields.h.
#include "server/file/json_fields.h"

#include <limits>

namespace sessa {

bool JsonFields::ToInt32(const boost::json::value& value, int32_t* out) {
  const int64_t* i = value.if_int64();
  if (i == nullptr || *i < std::numeric_limits<int32_t>::min() || *i > std::numeric_limits<int32_t>::max())
    return false;
  *out = static_cast<int32_t>(*i);
  return true;
}

void JsonFields::Read(std::string_view key, bool* out) { *out = Bool(key, *out); }

void JsonFields::Read(std::string_view key, int32_t* out) {
  const boost::json::value* v = Find(key);
  if (v != nullptr && !ToInt32(*v, out)) Fail(key, "must be an integer of 32 bits");
}

void JsonFields::Read(std::string_view key, float* out) {
  std::optional<double> value;
  Read(key, &value);
  if (!value.has_value()) return;
  // A conversion out of float's range is undefined.
  if (*value >= -std::numeric_limits<float>::max() && *value <= std::numeric_limits<float>::max()) {
    *out = static_cast<float>(*value);
  } else {
    Fail(key, "must be a finite float");
  }
}

void JsonFields::Read(std::string_view key, std::optional<int64_t>* out) {
  const boost::json::value* v = Find(key);
  if (v == nullptr) return;
  if (!v->is_int64()) return Fail(key, "must be an integer");
  *out = v->get_int64();
}

void JsonFields::Read(std::string_view key, std::optional<double>* out) {
  const boost::json::value* v = Find(key);
  if (v == nullptr) return;
  if (!v->is_number()) return Fail(key, "must be a number");
  *out = v->to_number<double>();
}

void JsonFields::ReadIds(std::string_view key, std::vector<int32_t>* out) {
  const boost::json::value* v = Find(key);
  if (v == nullptr) return;
  const auto add = [&](const boost::json::value& item) {
    int32_t id = 0;
    if (!ToInt32(item, &id)) return Fail(key, "must be an integer or a list of integers");
    out->push_back(id);
  };
  if (const boost::json::array* list = v->if_array()) {
    for (const boost::json::value& item : *list) add(item);
  } else {
    add(*v);
  }
}

}  // namespace sessa
