// The one reader of JSON objects in a checkpoint's files, with errors that name the key. The first error is
// kept, so that a list of keys reads as a list; what is absent or null leaves a target alone.
#pragma once

#include <boost/json/value.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace sessa {

class JsonFields {
 public:
  // `path`: how errors call the object; empty: by nothing. `json` outlives this.
  JsonFields(const boost::json::value& json, std::string path)
      : object_(json.if_object()), path_(std::move(path)) {
    if (object_ == nullptr) Fail("", "must be an object");
  }

  JsonFields(boost::json::value&&, std::string) = delete;

  // Null when it is absent or null.
  const boost::json::value* Find(std::string_view key) const {
    if (object_ == nullptr) return nullptr;
    const boost::json::value* v = object_->if_contains(boost::json::string_view(key.data(), key.size()));
    return v == nullptr || v->is_null() ? nullptr : v;
  }
  // Whether it is there, null or not, where the two differ.
  bool Has(std::string_view key) const {
    return object_ != nullptr && object_->contains(boost::json::string_view(key.data(), key.size()));
  }
  std::string String(std::string_view key) {
    const boost::json::value* v = Find(key);
    if (v != nullptr && v->is_string()) return std::string(v->as_string());
    Fail(key, "must be a string");
    return "";
  }
  std::string String(std::string_view key, std::string fallback) {
    return Find(key) == nullptr ? std::move(fallback) : String(key);
  }
  bool Bool(std::string_view key, bool fallback) {
    const boost::json::value* v = Find(key);
    if (v == nullptr) return fallback;
    if (!v->is_bool()) Fail(key, "must be true or false");
    return v->is_bool() && v->as_bool();
  }
  // In [0, 2^31).
  int32_t Int(std::string_view key, int32_t fallback) { return Find(key) == nullptr ? fallback : Id(key); }
  int32_t Id(std::string_view key) {
    const boost::json::value* v = Find(key);
    if (v != nullptr && v->is_int64() && v->as_int64() >= 0 && v->as_int64() <= 0x7fffffff)
      return static_cast<int32_t>(v->as_int64());
    Fail(key, "must be an integer in [0, 2^31)");
    return 0;
  }
  const boost::json::array* Array(std::string_view key) {
    const boost::json::value* v = Find(key);
    if (v == nullptr || !v->is_array()) Fail(key, "must be a list");
    return v == nullptr ? nullptr : v->if_array();
  }
  const boost::json::object* Object(std::string_view key) {
    const boost::json::value* v = Find(key);
    if (v == nullptr || !v->is_object()) Fail(key, "must be an object");
    return v == nullptr ? nullptr : v->if_object();
  }
  void Read(std::string_view key, bool* out);
  void Read(std::string_view key, int32_t* out);
  void Read(std::string_view key, float* out);  // within its range
  void Read(std::string_view key, std::optional<int64_t>* out);
  void Read(std::string_view key, std::optional<double>* out);
  // One id or a list of ids.
  void ReadIds(std::string_view key, std::vector<int32_t>* out);
  void Require(std::string_view key) {
    if (Find(key) == nullptr) Fail(key, "is missing");
  }
  // Refuses what would be ignored: anything but null, false, "" and 0.
  void Refuse(std::string_view key) {
    const boost::json::value* v = Find(key);
    if (v == nullptr || (v->is_bool() && !v->as_bool()) || (v->is_string() && v->as_string().empty())) return;
    if (v->is_number() && v->to_number<double>() == 0) return;
    Fail(key, "is not supported");
  }
  void Fail(std::string_view key, std::string_view what) {
    if (!status_.ok()) return;
    status_ = absl::InvalidArgumentError(
        absl::StrCat(path_, key.empty() || path_.empty() ? "" : ".", std::string(key),
                     key.empty() && path_.empty() ? "" : ": ", std::string(what)));
  }
  // Of an object within this one, or of what else belongs to it.
  void Update(const absl::Status& status) { status_.Update(status); }
  const absl::Status& status() const { return status_; }

 private:
  static bool ToInt32(const boost::json::value& value, int32_t* out);

  const boost::json::object* object_;
  const std::string path_;
  absl::Status status_;
};

}  // namespace sessa
