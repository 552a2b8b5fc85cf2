// See fields.h.
#include "server/rest/fields.h"

#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/core/errors.h"

namespace sessa {
namespace {

namespace json = boost::json;

constexpr double kExactIntegers =
    9007199254740992.0;  // 2^53: beyond it a double no longer says which integer was meant

const char* KindName(json::kind kind) {
  switch (kind) {
    case json::kind::null: return "null";
    case json::kind::bool_: return "a boolean";
    case json::kind::int64:
    case json::kind::uint64:
    case json::kind::double_: return "a number";
    case json::kind::string: return "a string";
    case json::kind::array: return "an array";
    case json::kind::object: return "an object";
  }
  return "something else";
}

}  // namespace

absl::Status TypeError(const std::string& path, const char* what, const json::value& value) {
  return FieldError(path, absl::StrCat("must be ", what, ", got ", KindName(value.kind())), "invalid_type");
}

absl::Status ReadValue(const json::value& value, const std::string& path, bool* out) {
  if (!value.is_bool()) return TypeError(path, "a boolean", value);
  *out = value.get_bool();
  return absl::OkStatus();
}

absl::Status ReadValue(const json::value& value, const std::string& path, int64_t* out) {
  if (value.is_int64()) {
    *out = value.get_int64();
    return absl::OkStatus();
  }
  if (value.is_uint64()) {
    if (value.get_uint64() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return FieldError(path, absl::StrCat("is out of range, got ", value.get_uint64()));
    }
    *out = static_cast<int64_t>(value.get_uint64());
    return absl::OkStatus();
  }
  if (!value.is_double()) return TypeError(path, "an integer", value);
  const double number = value.get_double();
  if (std::abs(number) > kExactIntegers)
    return FieldError(path, absl::StrCat("is out of range, got ", number));
  if (std::trunc(number) != number)
    return FieldError(path, absl::StrCat("must be an integer, got ", number), "invalid_type");
  *out = static_cast<int64_t>(number);
  return absl::OkStatus();
}

absl::Status ReadValue(const json::value& value, const std::string& path, uint64_t* out) {
  if (value.is_uint64()) {
    *out = value.get_uint64();
    return absl::OkStatus();
  }
  int64_t number = 0;
  if (absl::Status read = ReadValue(value, path, &number); !read.ok()) return read;
  if (number < 0) return FieldError(path, absl::StrCat("must not be negative, got ", number));
  *out = static_cast<uint64_t>(number);
  return absl::OkStatus();
}

absl::Status ReadValue(const json::value& value, const std::string& path, double* out) {
  if (value.is_double()) {
    *out = value.get_double();
  } else if (value.is_int64()) {
    *out = static_cast<double>(value.get_int64());
  } else if (value.is_uint64()) {
    *out = static_cast<double>(value.get_uint64());
  } else {
    return TypeError(path, "a number", value);
  }
  return absl::OkStatus();
}

absl::Status ReadValue(const json::value& value, const std::string& path, std::string* out) {
  if (!value.is_string()) return TypeError(path, "a string", value);
  out->assign(value.get_string().data(), value.get_string().size());
  return absl::OkStatus();
}

absl::Status ReadValue(const json::value& value, const std::string& path, std::vector<int64_t>* out) {
  if (!value.is_array()) return TypeError(path, "an array of integers", value);
  const json::array& array = value.get_array();
  out->resize(array.size());
  for (size_t i = 0; i < array.size(); ++i) {
    if (array[i].is_int64()) {  // the usual case, without building a path
      (*out)[i] = array[i].get_int64();
      continue;
    }
    absl::Status read = ReadValue(array[i], absl::StrCat(path, "[", i, "]"), &(*out)[i]);
    if (!read.ok()) return read;
  }
  return absl::OkStatus();
}

const json::value* Fields::Find(const std::string& name) {
  known_.insert(name);
  const json::value* value = object_.if_contains(name);
  return value == nullptr || value->is_null() ? nullptr : value;
}

void Fields::Read(const std::string& name, bool* out) {
  if (const json::value* value = Find(name)) log_->Fail(ReadValue(*value, Path(name), out));
}
void Fields::Read(const std::string& name, int64_t* out) {
  if (const json::value* value = Find(name)) log_->Fail(ReadValue(*value, Path(name), out));
}
void Fields::Read(const std::string& name, double* out) {
  if (const json::value* value = Find(name)) log_->Fail(ReadValue(*value, Path(name), out));
}
void Fields::Read(const std::string& name, std::string* out) {
  if (const json::value* value = Find(name)) log_->Fail(ReadValue(*value, Path(name), out));
}
void Fields::Read(const std::string& name, std::vector<int64_t>* out) {
  if (const json::value* value = Find(name)) log_->Fail(ReadValue(*value, Path(name), out));
}
void Fields::Read(const std::string& name, std::optional<bool>* out) {
  if (const json::value* value = Find(name)) log_->Fail(ReadValue(*value, Path(name), &out->emplace()));
}
void Fields::Read(const std::string& name, std::optional<int64_t>* out) {
  if (const json::value* value = Find(name)) log_->Fail(ReadValue(*value, Path(name), &out->emplace()));
}
void Fields::Read(const std::string& name, std::optional<double>* out) {
  if (const json::value* value = Find(name)) log_->Fail(ReadValue(*value, Path(name), &out->emplace()));
}
void Fields::Read(const std::string& name, std::optional<uint64_t>* out) {
  if (const json::value* value = Find(name)) log_->Fail(ReadValue(*value, Path(name), &out->emplace()));
}

void Fields::ListIgnored() const {
  for (const auto& member : object_) {
    if (log_->ignored.size() >= ReadLog::kMaxIgnored) return;
    const std::string name(member.key().data(), member.key().size());
    if (known_.count(name) == 0) log_->ignored.push_back(Path(name));
  }
}

}  // namespace sessa
