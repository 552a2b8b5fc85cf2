// The account of one rendering: every value that is made, every byte that is written or searched and every
// node that is walked is charged here and nowhere else, so that a template can neither run for long nor use
// up the memory, whatever it does and whatever the request brings. Not thread-safe; outlives its values.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "server/jinja/object.h"
#include "server/jinja/value.h"

namespace sessa::jinja {

// A template's own size is bounded by its parser (parser.h).
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
  Value MakeTuple(List list);
  // An object of what it holds; null, and failed, when it would be too much.
  template <typename T, typename... A>
  std::shared_ptr<T> Make(A&&... arguments);

  // A namespace, which is kept until ForgetNamespaces: they can hold each other in a circle.
  Value MakeNamespace(const Dict& attributes);
  void Assign(Namespace* space, std::string_view name, Value value);
  void ForgetNamespaces();

  // For what is held beside values: pairs that match. Take is false, and takes nothing, beyond max_bytes.
  bool Take(int64_t num_bytes);
  void Give(int64_t num_bytes) { num_bytes_ -= num_bytes; }

 private:
  friend class ListBuilder;
  friend class DictBuilder;

  void Check();
  bool CheckDepth(int depth);

  const RenderLimits limits_;
  const std::atomic<bool>* const cancelled_;
  absl::Status status_;
  int line_ = 1;
  int64_t num_steps_ = 0, next_check_ = 1;
  int64_t num_bytes_ = 0;
  std::vector<std::shared_ptr<Namespace>> namespaces_;
  int64_t namespace_bytes_ = 0;
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
  Value Finish();  // leaves it empty
  Value FinishMarkup();
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
  Value Finish() { return Value(FinishNode()); }
  Value FinishTuple() { return Value::TupleOf(FinishNode()); }

 private:
  NodePtr<List> FinishNode();  // null once the budget has failed

  Budget* const budget_;
  List list_;
  int64_t num_bytes_ = 0;
};

class DictBuilder {
 public:
  explicit DictBuilder(Budget* budget) : budget_(budget) {}
  ~DictBuilder() { budget_->Give(num_bytes_); }
  DictBuilder(const DictBuilder&) = delete;
  DictBuilder& operator=(const DictBuilder&) = delete;

  void Add(Value key, Value value);  // Requires: a new key
  void Add(std::string_view key, Value value) { Add(budget_->Text(key), std::move(value)); }
  // The last value of a key stays, in the place of its first. Fails for a list or a mapping as a key.
  void Put(Value key, Value value);
  void PutAll(const Dict& dict);
  Value Finish();
  Dict Release();  // out of the account

 private:
  Budget* const budget_;
  Dict dict_;
  int64_t num_bytes_ = 0;
};

template <typename T, typename... A>
std::shared_ptr<T> Budget::Make(A&&... arguments) {
  constexpr int64_t kBytes = sizeof(T) + 32;  // and the counts of shared_ptr
  if (!Step() || !Take(kBytes)) return nullptr;
  auto object = std::make_shared<T>(std::forward<A>(arguments)...);
  object->budget_ = this;
  object->num_bytes_ = kBytes;
  return CheckDepth(object->depth()) ? object : nullptr;
}

inline Object::~Object() {
  if (budget_ != nullptr) budget_->Give(num_bytes_);
}

template <typename T>
Node<T>::~Node() {
  if (budget != nullptr) budget->Give(num_bytes);
}

}  // namespace sessa::jinja
