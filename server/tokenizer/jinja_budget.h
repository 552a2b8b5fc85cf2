// The account of one rendering: every value that is made, every byte that is written or searched and every
// node that is walked is charged here and nowhere else, so that a template can neither run for long nor use
// up the memory, whatever it does and whatever the request brings. Not thread-safe; outlives its values.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "server/tokenizer/jinja_value.h"

namespace sessa::jinja {

// A template's own size is bounded by its parser (jinja_parser.h).
struct RenderLimits {
  // A step is an expression, a statement or an item, or kBytesPerStep bytes copied, searched or compared.
  // Chats of a thousand messages take 20 000 to 100 000; 4 million are a quarter of a second.
  int64_t max_steps = 4'000'000;
  // Of all live values and the output together, as allocated. A body has 4 MiB; a template joins it a few
  // times.
  int64_t max_bytes = 64 << 20;
  int max_depth = 100;        // lists and mappings inside each other
  int max_error_bytes = 500;  // of an error's text, which may quote values
};

class Budget {
 public:
  static constexpr int64_t kBytesPerStep = 32;

  // `cancelled`, when it is given and becomes true, ends the rendering within a thousand steps.
  explicit Budget(const RenderLimits& limits = {}, const std::atomic<bool>* cancelled = nullptr)
      : limits_(limits), cancelled_(cancelled) {}
  Budget(const Budget&) = delete;
  Budget& operator=(const Budget&) = delete;

  bool ok() const { return status_.ok(); }
  const absl::Status& status() const { return status_; }
  int64_t num_steps() const { return num_steps_; }
  int64_t num_bytes() const { return num_bytes_; }  // that live
  void set_line(int line) { line_ = line; }         // where the template is, for errors

  // INVALID_ARGUMENT with the line. The first failure counts; what follows must be cheap.
  void Fail(std::string_view what);
  void Raise(std::string_view message);  // the template's own error

  // False once anything failed.
  bool Step(int64_t num_steps = 1) {
    num_steps_ += num_steps;
    if (num_steps_ >= next_check_) Check();
    return status_.ok();
  }
  bool StepBytes(int64_t num_bytes) { return Step(num_bytes / kBytesPerStep); }

  // Undefined, and failed, when it would be too much.
  Value Text(std::string_view text);
  Value MakeList(List list);

 private:
  template <typename T>
  friend struct Node;
  friend class TextBuilder;
  friend class ListBuilder;
  friend class DictBuilder;
  friend class ByteHold;

  void Check();
  bool Take(int64_t num_bytes);  // false, and nothing taken, beyond max_bytes
  void Give(int64_t num_bytes) { num_bytes_ -= num_bytes; }

  const RenderLimits limits_;
  const std::atomic<bool>* const cancelled_;
  absl::Status status_;
  int line_ = 1;
  int64_t num_steps_ = 0, next_check_ = 1;
  int64_t num_bytes_ = 0;
};

// Holds bytes that are used beside values, for as long as it lives.
class ByteHold {
 public:
  ByteHold(Budget* budget, int64_t num_bytes)
      : budget_(budget), num_bytes_(budget->Take(num_bytes) ? num_bytes : 0) {}
  ~ByteHold() { budget_->Give(num_bytes_); }
  ByteHold(const ByteHold&) = delete;
  ByteHold& operator=(const ByteHold&) = delete;

 private:
  Budget* const budget_;
  const int64_t num_bytes_;
};

// A string in the making: charged before it grows. Once the budget has failed nothing is added.
class TextBuilder {
 public:
  explicit TextBuilder(Budget* budget) : budget_(budget) {}
  ~TextBuilder() { budget_->Give(num_bytes_); }
  TextBuilder(const TextBuilder&) = delete;
  TextBuilder& operator=(const TextBuilder&) = delete;

  void Reserve(size_t num_bytes);  // where the size is known: else it doubles
  void Append(std::string_view text);
  Value Finish();         // leaves it empty
  std::string Release();  // out of the account

 private:
  Budget* const budget_;
  std::string text_;
  int64_t num_bytes_ = 0;  // charged, of the capacity
};

class ListBuilder {
 public:
  explicit ListBuilder(Budget* budget) : budget_(budget) {}
  ~ListBuilder() { budget_->Give(num_bytes_); }
  ListBuilder(const ListBuilder&) = delete;
  ListBuilder& operator=(const ListBuilder&) = delete;

  void Append(Value value);  // a step
  Value Finish();

 private:
  Budget* const budget_;
  List list_;
  int64_t num_bytes_ = 0;
};

// An undefined value is none inside of a mapping.
class DictBuilder {
 public:
  explicit DictBuilder(Budget* budget) : budget_(budget) {}
  ~DictBuilder() { budget_->Give(num_bytes_); }
  DictBuilder(const DictBuilder&) = delete;
  DictBuilder& operator=(const DictBuilder&) = delete;

  void Add(std::string_view key, Value value);  // Requires: a new key
  void Put(std::string_view key, Value value);  // the last value of a key stays, in the place of its first
  Value Finish();

 private:
  Budget* const budget_;
  Dict dict_;
  int64_t num_bytes_ = 0;
};

template <typename T>
Node<T>::~Node() {
  if (budget != nullptr) budget->Give(num_bytes);
}

}  // namespace sessa::jinja
