#include "server/jinja/budget.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/jinja/operators.h"

namespace sessa::jinja {
namespace {

constexpr int64_t kStepsPerCheck = 1000;  // between looks at the clients' flag: some 50 microseconds
constexpr size_t kMinCapacity = 16;       // so that small pieces do not charge one by one

int DepthOf(const List& list) {
  int depth = 0;
  for (const Value& v : list) depth = std::max(depth, v.depth() + 1);
  return depth;
}
int DepthOf(const Dict& dict) {
  int depth = 0;
  for (const auto& [key, v] : dict) depth = std::max({depth, key.depth() + 1, v.depth() + 1});
  return depth;
}

// Cut at a character's beginning.
std::string_view Cut(std::string_view text, size_t max_bytes) {
  if (text.size() <= max_bytes) return text;
  while (max_bytes > 0 && (text[max_bytes] & 0xc0) == 0x80) --max_bytes;
  return text.substr(0, max_bytes);
}

}  // namespace

void Budget::Fail(std::string_view what) {
  if (!status_.ok()) return;
  const std::string_view cut = Cut(what, limits_.max_error_bytes);
  status_ = absl::InvalidArgumentError(
      absl::StrCat("chat template, line ", line_, ": ", absl::string_view(cut.data(), cut.size())));
}

void Budget::Raise(std::string_view message) {
  if (!status_.ok()) return;
  const std::string_view cut = Cut(message, limits_.max_error_bytes);
  status_ = absl::InvalidArgumentError(
      absl::StrCat("the chat template says: ", absl::string_view(cut.data(), cut.size())));
}

void Budget::Check() {
  if (num_steps_ > limits_.max_steps) Fail("takes too many steps");
  if (cancelled_ != nullptr && *cancelled_ && status_.ok()) {
    status_ = absl::CancelledError("nobody waits for the chat template's text any more");
  }
  next_check_ = std::min(num_steps_ + kStepsPerCheck, limits_.max_steps + 1);
}

bool Budget::Take(int64_t num_bytes) {
  if (num_bytes > limits_.max_bytes - num_bytes_) Fail("its values become too large");
  if (!status_.ok()) return false;
  num_bytes_ += num_bytes;
  return true;
}

Value Budget::Text(std::string_view text) {
  TextBuilder builder(this);
  builder.Append(text);
  return builder.Finish();
}

bool Budget::CheckDepth(int depth) {
  if (depth > limits_.max_depth) Fail("values are nested too deep");
  return status_.ok();
}

namespace {

constexpr int64_t kAttributeBytes = 2 * sizeof(Dict::value_type);  // as the vector doubles

}  // namespace

Value Budget::MakeNamespace(const Dict& attributes) {
  for (const auto& [name, value] : attributes) {
    // As Hugging Face, which keeps templates from Python's own names.
    if (name.text() != nullptr && name.text()->starts_with('_'))
      Fail(absl::StrCat("a namespace's attributes cannot begin with _, as '", *name.text(), "' does"));
  }
  auto space = Make<Namespace>(attributes);
  const int64_t num_bytes = static_cast<int64_t>(attributes.size() + 1) * kAttributeBytes;
  if (space == nullptr || !Take(num_bytes)) return {};
  namespace_bytes_ += num_bytes;
  namespaces_.push_back(space);
  return Value(std::shared_ptr<Object>(std::move(space)));
}

void Budget::Assign(Namespace* space, std::string_view name, Value value) {
  if (name.starts_with('_'))
    return Fail(absl::StrCat("a namespace's attributes cannot begin with _, as '",
                             absl::string_view(name.data(), name.size()), "' does"));
  if (const size_t at = FindKey(space->attributes, name, this); at < space->attributes.size()) {
    space->attributes[at].second = std::move(value);
    return;
  }
  if (!Take(kAttributeBytes)) return;
  namespace_bytes_ += kAttributeBytes;
  space->attributes.emplace_back(Text(name), std::move(value));
}

void Budget::ForgetNamespaces() {
  // All of them live until the last is empty, so that a chain of them is not freed by recursion.
  for (const auto& space : namespaces_) space->attributes.clear();
  namespaces_.clear();
  Give(std::exchange(namespace_bytes_, 0));
}

Value Budget::MakeList(List list) {
  ListBuilder builder(this);
  for (Value& value : list) builder.Append(std::move(value));
  return builder.Finish();
}

Value Budget::MakeTuple(List list) {
  ListBuilder builder(this);
  for (Value& value : list) builder.Append(std::move(value));
  return builder.FinishTuple();
}

void TextBuilder::Reserve(size_t size) {
  const int64_t capacity = static_cast<int64_t>(size);
  // While it moves both copies are there; only the new one is charged.
  if (capacity <= num_bytes_ || !budget_->Take(capacity - num_bytes_)) return;
  num_bytes_ = capacity;
  text_.reserve(size);
}

void TextBuilder::Append(std::string_view text) {
  if (!budget_->Step(1 + static_cast<int64_t>(text.size()) / Budget::kBytesPerStep)) return;
  const size_t size = text_.size() + text.size();
  // Twice as much, as the string itself would take.
  if (static_cast<int64_t>(size) > num_bytes_)
    Reserve(std::max({size, 2 * static_cast<size_t>(num_bytes_), kMinCapacity}));
  if (budget_->ok()) text_ += text;
}

Value TextBuilder::Finish() {
  constexpr int64_t kNodeBytes = sizeof(Node<std::string>);
  if (!budget_->ok() || !budget_->Take(kNodeBytes)) return {};
  const int64_t num_bytes = std::exchange(num_bytes_, 0) + kNodeBytes;
  return Value(std::make_shared<const Node<std::string>>(std::exchange(text_, {}), budget_, num_bytes, 0));
}

Value TextBuilder::FinishMarkup() { return Value::MarkupOf(Finish().text_node()); }

std::string TextBuilder::Release() {
  budget_->Give(std::exchange(num_bytes_, 0));
  return std::exchange(text_, {});
}

void ListBuilder::Append(Value value) {
  if (!budget_->Step()) return;
  if (list_.size() == list_.capacity()) {
    const size_t capacity = std::max<size_t>(4, list_.capacity() + list_.capacity() / 2);
    const int64_t more = static_cast<int64_t>((capacity - list_.capacity()) * sizeof(Value));
    if (!budget_->Take(more)) return;
    num_bytes_ += more;
    list_.reserve(capacity);
  }
  list_.push_back(std::move(value));
}

NodePtr<List> ListBuilder::FinishNode() {
  constexpr int64_t kNodeBytes = sizeof(Node<List>);
  const int depth = DepthOf(list_);
  if (!budget_->CheckDepth(depth) || !budget_->Take(kNodeBytes)) return nullptr;
  const int64_t num_bytes = std::exchange(num_bytes_, 0) + kNodeBytes;
  return std::make_shared<const Node<List>>(std::exchange(list_, {}), budget_, num_bytes, depth);
}

void DictBuilder::Add(Value key, Value value) {
  if (!budget_->Step()) return;
  constexpr int64_t kEntryBytes = 2 * sizeof(Dict::value_type);  // as the vector doubles
  if (!budget_->Take(kEntryBytes)) return;
  num_bytes_ += kEntryBytes;
  dict_.emplace_back(std::move(key), std::move(value));
}

void DictBuilder::Put(Value key, Value value) {
  if (!IsHashable(key)) return budget_->Fail(absl::StrCat("unhashable type: '", TypeName(key), "'"));
  if (const size_t at = FindKey(dict_, key, budget_); at < dict_.size()) {
    dict_[at].second = std::move(value);
    return;
  }
  Add(std::move(key), std::move(value));
}

void DictBuilder::PutAll(const Dict& dict) {
  for (const auto& [key, value] : dict) {
    if (!budget_->ok()) return;
    Put(key, value);
  }
}

Dict DictBuilder::Release() {
  budget_->Give(std::exchange(num_bytes_, 0));
  return std::exchange(dict_, {});
}

Value DictBuilder::Finish() {
  constexpr int64_t kNodeBytes = sizeof(Node<Dict>);
  const int depth = DepthOf(dict_);
  if (!budget_->CheckDepth(depth) || !budget_->Take(kNodeBytes)) return {};
  const int64_t num_bytes = std::exchange(num_bytes_, 0) + kNodeBytes;
  return Value(std::make_shared<const Node<Dict>>(std::exchange(dict_, {}), budget_, num_bytes, depth));
}

}  // namespace sessa::jinja
