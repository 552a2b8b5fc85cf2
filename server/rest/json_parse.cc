// See json_parse.h. The handler keeps its own path of keys and indexes beside Boost.JSON's stack of values.
#include "server/rest/json_parse.h"

#include <cmath>
#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "boost/json/basic_parser_impl.hpp"
#include "boost/json/monotonic_resource.hpp"
#include "boost/json/value_stack.hpp"
#include "server/core/errors.h"

namespace sessa {
namespace {

namespace json = boost::json;
using ErrorCode = boost::json::error_code;

constexpr size_t kMaxPathBytes = 200;
constexpr size_t kMinTreeBytes = 4 << 10;

class TreeHandler {
 public:
  static constexpr size_t max_object_size = json::object::max_size();
  static constexpr size_t max_array_size = json::array::max_size();
  static constexpr size_t max_key_size = json::string::max_size();
  static constexpr size_t max_string_size = json::string::max_size();

  bool on_document_begin(ErrorCode&) {
    // A tree of millions of small values in a few large pieces of memory: who frees each of them holds the
    // heap's lock for much of that time, and the engine's thread, which frees what came with a request from
    // here, waits until this thread, nicer than it, has a core again.
    stack_.reset(json::make_shared_resource<json::monotonic_resource>(kMinTreeBytes));
    return true;
  }
  bool on_document_end(ErrorCode&) { return true; }
  bool on_object_begin(ErrorCode&) {
    BeginValue();
    Enter(/*is_object=*/true);
    return true;
  }
  bool on_object_end(size_t n, ErrorCode&) {
    --depth_;
    stack_.push_object(n);
    EndValue();
    return true;
  }
  bool on_array_begin(ErrorCode&) {
    BeginValue();
    Enter(/*is_object=*/false);
    return true;
  }
  bool on_array_end(size_t n, ErrorCode&) {
    --depth_;
    stack_.push_array(n);
    EndValue();
    return true;
  }
  bool on_key_part(json::string_view part, size_t, ErrorCode&) {
    key_.append(part.data(), part.size());
    stack_.push_chars(part);
    return true;
  }
  bool on_key(json::string_view part, size_t, ErrorCode& ec) {
    key_.append(part.data(), part.size());
    stack_.push_key(part);
    Frame& frame = frames_[depth_ - 1];
    frame.key.swap(key_);
    frame.in_value = true;
    key_.clear();
    return frame.keys.insert(frame.key).second || Fail("is there twice", ec);
  }
  bool on_string_part(json::string_view part, size_t, ErrorCode&) {
    stack_.push_chars(part);
    return true;
  }
  bool on_string(json::string_view part, size_t, ErrorCode&) {
    BeginValue();
    stack_.push_string(part);
    EndValue();
    return true;
  }
  bool on_number_part(json::string_view, ErrorCode&) { return true; }
  bool on_int64(int64_t value, json::string_view, ErrorCode&) {
    BeginValue();
    stack_.push_int64(value);
    EndValue();
    return true;
  }
  bool on_uint64(uint64_t value, json::string_view, ErrorCode&) {
    BeginValue();
    stack_.push_uint64(value);
    EndValue();
    return true;
  }
  bool on_double(double value, json::string_view, ErrorCode& ec) {
    BeginValue();
    if (!std::isfinite(value)) return Fail("is a number out of range", ec);
    stack_.push_double(value);
    EndValue();
    return true;
  }
  bool on_bool(bool value, ErrorCode&) {
    BeginValue();
    stack_.push_bool(value);
    EndValue();
    return true;
  }
  bool on_null(ErrorCode&) {
    BeginValue();
    stack_.push_null();
    EndValue();
    return true;
  }
  bool on_comment_part(json::string_view, ErrorCode&) { return true; }
  bool on_comment(json::string_view, ErrorCode&) { return true; }

  const absl::Status& status() const { return status_; }
  // The path of the value that is being read; empty between values.
  std::string Where() const {
    if (depth_ == 0 || !frames_[depth_ - 1].in_value) return "";
    return Path();
  }
  json::value Release() { return stack_.release(); }

 private:
  struct Frame {
    bool is_object = false;
    bool in_value = false;  // of an object: after a key, before its value's end
    int64_t index = -1;     // of the array's current value
    std::string key = {};   // of the object's current value
    absl::flat_hash_set<std::string> keys = {};
  };

  void Enter(bool is_object) {
    if (depth_++ == frames_.size()) frames_.emplace_back();
    Frame& frame = frames_[depth_ - 1];
    frame.is_object = is_object;
    frame.in_value = false;
    frame.index = -1;
    frame.keys.clear();
  }
  void BeginValue() {
    if (depth_ > 0 && !frames_[depth_ - 1].is_object) ++frames_[depth_ - 1].index;
  }
  void EndValue() {
    if (depth_ > 0) frames_[depth_ - 1].in_value = false;
  }
  std::string Path() const {
    std::string path;
    for (size_t i = 0; i < depth_; ++i) {
      const Frame& frame = frames_[i];
      if (frame.is_object) {
        absl::StrAppend(&path, path.empty() ? "" : ".", frame.key);
      } else {
        absl::StrAppend(&path, "[", frame.index, "]");
      }
    }
    return path.size() > kMaxPathBytes ? "a key" : path;  // never cut inside a character
  }
  bool Fail(const char* problem, ErrorCode& ec) {
    const std::string path = Path();
    status_ = FieldError(path.empty() ? "body" : path, problem, "invalid_json");
    ec = json::error::syntax;
    return false;
  }

  json::value_stack stack_;
  std::vector<Frame> frames_;  // the first depth_; the others keep their memory for those to come
  size_t depth_ = 0;
  std::string key_;
  absl::Status status_;
};

absl::Status JsonError(const std::string& message, const std::string& path = "") {
  return Annotate(absl::InvalidArgumentError(absl::StrCat("The body is not valid JSON: ", message)), path,
                  "invalid_json");
}

}  // namespace

absl::StatusOr<json::value> ParseJson(const std::string& text, int max_depth) {
  json::parse_options options;
  options.max_depth = max_depth;
  json::basic_parser<TreeHandler> parser(options);
  ErrorCode ec;
  const size_t used = parser.write_some(false, text.data(), text.size(), ec);
  if (!parser.handler().status().ok()) return parser.handler().status();
  if (ec == json::error::too_deep)
    return JsonError(absl::StrCat("it is nested deeper than ", max_depth, " levels."));
  if (ec) {  // also NaN and Infinity, which JSON has no word for
    const std::string path = parser.handler().Where();
    return JsonError(absl::StrCat(ec.message(), " near byte ", used,
                                  path.empty() ? "" : absl::StrCat(", the value of ", path), "."),
                     path);
  }
  if (used < text.size()) return JsonError(absl::StrCat("extra text after byte ", used, "."));
  return parser.handler().Release();
}

}  // namespace sessa
