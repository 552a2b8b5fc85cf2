// Typed reading of one JSON object: each getter leaves its target alone when the field is absent or null, and
// the first wrong type is kept as the error, named by its path. Fields that nobody asked for are the ignored
// ones. Numbers are judged by range here only where the C++ type ends; meaning is ValidateRequest's.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "boost/json/object.hpp"
#include "boost/json/value.hpp"

namespace sessa {

// What reading one request found, over all its objects.
struct ReadLog {
  absl::Status status;               // the first error
  std::vector<std::string> ignored;  // paths of unknown fields, at most kMaxIgnored

  static constexpr size_t kMaxIgnored = 32;
  void Fail(absl::Status error) { status.Update(error); }
};

class Fields {
 public:
  // `object` and `log` outlive this. `path` is the object's own, empty for the body.
  Fields(const boost::json::object& object, std::string path, ReadLog* log)
      : object_(object), path_(std::move(path)), log_(log) {}

  // Null when absent or null; either way the field counts as known.
  const boost::json::value* Find(const std::string& name);
  std::string Path(const std::string& name) const { return path_.empty() ? name : path_ + "." + name; }

  void Read(const std::string& name, bool* out);
  void Read(const std::string& name, std::optional<bool>* out);
  void Read(const std::string& name, int64_t* out);
  void Read(const std::string& name, std::optional<int64_t>* out);
  void Read(const std::string& name, std::optional<uint64_t>* out);
  void Read(const std::string& name, double* out);
  void Read(const std::string& name, std::optional<double>* out);
  void Read(const std::string& name, std::string* out);
  void Read(const std::string& name, std::vector<int64_t>* out);

  // Adds the fields that were not asked for to the log. Call last.
  void ListIgnored() const;
  // All that were asked for, there or not. Call last of all.
  std::set<std::string> TakeKnown() { return std::move(known_); }

 private:
  const boost::json::object& object_;
  const std::string path_;
  ReadLog* const log_;
  std::set<std::string> known_;
};

// The value as the type, or an error that names `path`. 1.0 is an integer, 1.5 is not.
absl::Status ReadValue(const boost::json::value& value, const std::string& path, bool* out);
absl::Status ReadValue(const boost::json::value& value, const std::string& path, int64_t* out);
absl::Status ReadValue(const boost::json::value& value, const std::string& path, uint64_t* out);
absl::Status ReadValue(const boost::json::value& value, const std::string& path, double* out);
absl::Status ReadValue(const boost::json::value& value, const std::string& path, std::string* out);
absl::Status ReadValue(const boost::json::value& value, const std::string& path, std::vector<int64_t>* out);

// "must be WHAT, got a KIND".
absl::Status TypeError(const std::string& path, const char* what, const boost::json::value& value);

}  // namespace sessa
