// Reading the keys of a checkpoint's JSON objects: the first error is kept, so that a list of keys reads as a
// list. What is absent or null leaves its target alone.
#pragma once

#include <boost/json.hpp>
#include <cstdint>
#include <limits>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace sessa {

class ConfigReader {
 public:
  explicit ConfigReader(const boost::json::object& object) : object_(object) {}

  void Int(const char* key, int32_t* out, bool required) {
    const boost::json::value* v = Find(key, required);
    if (v != nullptr && !ToInt(*v, out)) status_.Update(Bad(key, "is not an integer of 32 bits"));
  }
  void Float(const char* key, float* out) {
    const boost::json::value* v = Find(key, false);
    if (v == nullptr) return;
    if (!v->is_number()) return status_.Update(Bad(key, "is not a number"));
    const double d = v->is_double() ? v->get_double() : v->is_int64() ? v->get_int64() : v->get_uint64();
    // A conversion out of float's range is undefined.
    if (!(d >= -std::numeric_limits<float>::max() && d <= std::numeric_limits<float>::max())) {
      return status_.Update(Bad(key, "is not a finite float"));
    }
    *out = static_cast<float>(d);
  }
  void Double(const char* key, std::optional<double>* out) {
    const boost::json::value* v = Find(key, false);
    if (v == nullptr) return;
    if (!v->is_number()) return status_.Update(Bad(key, "is not a number"));
    *out = v->is_double() ? v->get_double() : v->is_int64() ? v->get_int64() : v->get_uint64();
  }
  void Int64(const char* key, std::optional<int64_t>* out) {
    const boost::json::value* v = Find(key, false);
    if (v == nullptr) return;
    if (!v->is_int64()) return status_.Update(Bad(key, "is not an integer"));
    *out = v->get_int64();
  }
  void Bool(const char* key, bool* out) {
    const boost::json::value* v = Find(key, false);
    if (v == nullptr) return;
    if (!v->is_bool()) return status_.Update(Bad(key, "is not true or false"));
    *out = v->get_bool();
  }
  // One id or a list of ids.
  void Ids(const char* key, std::vector<int32_t>* out) {
    const boost::json::value* v = Find(key, false);
    if (v == nullptr) return;
    const auto add = [&](const boost::json::value& item) {
      int32_t id = 0;
      if (!ToInt(item, &id)) return status_.Update(Bad(key, "is not an integer or a list of integers"));
      out->push_back(id);
    };
    if (const boost::json::array* list = v->if_array()) {
      for (const boost::json::value& item : *list) add(item);
    } else {
      add(*v);
    }
  }
  const absl::Status& status() const { return status_; }

 private:
  static absl::Status Bad(absl::string_view key, absl::string_view what) {
    return absl::InvalidArgumentError(absl::StrCat(key, " ", what));
  }

  static bool ToInt(const boost::json::value& v, int32_t* out) {
    const int64_t* i = v.if_int64();
    if (i == nullptr || *i < std::numeric_limits<int32_t>::min() || *i > std::numeric_limits<int32_t>::max())
      return false;
    *out = static_cast<int32_t>(*i);
    return true;
  }

  // nullptr when the key is absent or null.
  const boost::json::value* Find(const char* key, bool required) {
    const boost::json::value* v = object_.if_contains(key);
    if (v != nullptr && !v->is_null()) return v;
    if (required) status_.Update(Bad(key, "is missing"));
    return nullptr;
  }

  const boost::json::object& object_;
  absl::Status status_;
};

}  // namespace sessa
