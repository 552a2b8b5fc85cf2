#include "server/jinja/members.h"

#include <algorithm>
#include <optional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/jinja/builtins.h"
#include "server/jinja/callables.h"
#include "server/jinja/loop.h"
#include "server/jinja/operators.h"
#include "server/jinja/text.h"

namespace sessa::jinja {
namespace {

// The characters begin, begin + step, ... before end of a text, by their bytes. A first walk finds where each
// begins.
Value PickCharacters(const Value& of, int64_t begin, int64_t end, int64_t step, Budget* budget) {
  const std::string& text = *of.text();
  const ByteHold hold(budget, static_cast<int64_t>((text.size() + 1) * sizeof(uint32_t)));
  if (!budget->Step(static_cast<int64_t>(text.size()) / 8)) return {};
  std::vector<uint32_t> starts;  // no text has 4 GiB
  starts.reserve(text.size() + 1);
  for (size_t i = 0; i < text.size(); ++i) {
    if ((text[i] & 0xc0) != 0x80) starts.push_back(static_cast<uint32_t>(i));
  }
  starts.push_back(static_cast<uint32_t>(text.size()));
  TextBuilder out(budget);
  if (step == 1) {
    if (begin < end) out.Append(std::string_view(text).substr(starts[begin], starts[end] - starts[begin]));
  } else {
    for (int64_t i = begin; budget->ok() && (step > 0 ? i < end : i > end); i += step)
      out.Append(std::string_view(text).substr(starts[i], starts[i + 1] - starts[i]));
  }
  return of.is_markup() ? out.FinishMarkup() : out.Finish();
}

// What Python's getattr finds; nothing when it has no such attribute.
std::optional<Value> BuiltinAttribute(const Value& of, std::string_view name, Budget* budget) {
  if (const Builtin* method = FindMethod(of, name)) return Value(budget->Make<BoundBuiltin>(method, of));
  if (IsForbidden(of, name) || name == "__class__") return Value();
  // groupby's pairs have names. Those of every pair do here; Python's other tuples have no attributes at all.
  if (of.is_tuple() && of.items()->size() == 2 && (name == "grouper" || name == "list"))
    return (*of.items())[name == "list" ? 1 : 0];
  if (of.object() == nullptr) return std::nullopt;
  if (const auto* space = of.As<Namespace>()) {
    const size_t at = FindKey(space->attributes, name, budget);
    if (at < space->attributes.size()) return space->attributes[at].second;
  }
  if (auto* loop = of.As<LoopContext>()) return loop->Attribute(of, name, budget);
  if (const auto* range = of.As<Range>()) {
    if (name == "start") return Value(range->start);
    if (name == "stop") return Value(range->stop);
    if (name == "step") return Value(range->step);
  }
  if (const auto* callable = of.As<NamedCallable>(); callable != nullptr && name == "name")
    return budget->Text(callable->name());
  if (const auto* cycler = of.As<Cycler>(); cycler != nullptr) {
    if (name == "current") return (*cycler->items.items())[cycler->at];
    if (name == "items") return cycler->items;
    if (const Builtin* function = FindCyclerMethod(name))
      return Value(budget->Make<BoundBuiltin>(function, of));
  }
  return std::nullopt;
}

// What Python's subscript finds.
std::optional<Value> Subscript(const Value& of, const Value& key, Budget* budget) {
  if (of.dict() != nullptr) {
    if (!IsHashable(key)) return std::nullopt;
    const size_t at = FindKey(*of.dict(), key, budget);
    return at < of.dict()->size() ? std::optional<Value>((*of.dict())[at].second) : std::nullopt;
  }
  const auto index = key.AsInteger();
  const auto* range = of.As<Range>();
  if (!index.has_value() || (of.items() == nullptr && of.text() == nullptr && range == nullptr))
    return std::nullopt;
  const int64_t n = Length(of, budget);
  const int64_t i = *index < 0 ? *index + n : *index;
  if (i < 0 || i >= n) return std::nullopt;
  if (of.items() != nullptr) return (*of.items())[i];
  return range != nullptr ? Value(range->At(i)) : PickCharacters(of, i, i + 1, 1, budget);
}

}  // namespace

Value Attribute(const Value& of, const std::string* name, Budget* budget) {
  if (!of.is_defined()) {
    budget->Fail(of.UndefinedMessage());
    return {};
  }
  if (auto found = BuiltinAttribute(of, *name, budget)) return *std::move(found);
  if (of.dict() != nullptr) {
    const size_t at = FindKey(*of.dict(), std::string_view(*name), budget);
    if (at < of.dict()->size()) return (*of.dict())[at].second;
  }
  return Value::Undefined(name, /*is_member=*/true);
}

Value Item(const Value& of, const Value& key, const std::string* name, Budget* budget) {
  if (!of.is_defined()) {
    budget->Fail(of.UndefinedMessage());
    return {};
  }
  if (auto found = Subscript(of, key, budget)) return *std::move(found);
  if (key.text() != nullptr && budget->ok()) {
    if (auto found = BuiltinAttribute(of, *key.text(), budget)) return *std::move(found);
  }
  return Value::Undefined(name, /*is_member=*/true);
}

// As Python's: negative bounds count from the end, and what is out of range is cut.
Value Slice(const Value& of, const Value (&bounds)[3], Budget* budget) {
  if (!of.is_defined()) {
    budget->Fail(of.UndefinedMessage());
    return {};
  }
  const auto* range = of.As<Range>();
  if (of.items() == nullptr && of.text() == nullptr && range == nullptr) {
    budget->Fail(absl::StrCat("'", TypeName(of), "' object cannot be sliced"));
    return {};
  }
  for (const Value& bound : bounds) {
    if (bound.is_none() || bound.AsInteger().has_value()) continue;
    budget->Fail("slice indices must be integers or None");
    return {};
  }
  const int64_t n = Length(of, budget);
  // A step beyond the whole is as good as one that just leaves it, and does not overflow.
  const int64_t asked = bounds[2].is_none() ? 1 : *bounds[2].AsInteger();
  const int64_t step = std::clamp(asked, -n - 1, n + 1);
  if (step == 0) {
    budget->Fail("slice step cannot be zero");
    return {};
  }
  const int64_t low = step < 0 ? -1 : 0, high = step < 0 ? n - 1 : n;
  const auto clip = [&](const Value& bound, int64_t otherwise) {
    if (bound.is_none()) return otherwise;
    const int64_t x = *bound.AsInteger();
    return std::clamp(x >= 0 ? x : x < -n ? int64_t{-1} : x + n, low, high);
  };
  const int64_t begin = clip(bounds[0], step > 0 ? 0 : n - 1), end = clip(bounds[1], step > 0 ? n : -1);
  if (of.text() != nullptr) return PickCharacters(of, begin, end, step, budget);
  if (range != nullptr) {
    const int64_t length = std::max<int64_t>(0, (end - begin + step - (step > 0 ? 1 : -1)) / step);
    // In 64 bits, whatever comes: of absurd steps at most the first item is ever taken.
    const auto times = [range](int64_t i) {
      return static_cast<uint64_t>(i) * static_cast<uint64_t>(range->step);
    };
    const auto at = [&](int64_t i) {
      return static_cast<int64_t>(static_cast<uint64_t>(range->start) + times(i));
    };
    return Value(budget->Make<Range>(at(begin), at(end), static_cast<int64_t>(times(asked)), length));
  }
  ListBuilder out(budget);
  for (int64_t i = begin; budget->ok() && (step > 0 ? i < end : i > end); i += step)
    out.Append((*of.items())[i]);
  return of.is_tuple() ? out.FinishTuple() : out.Finish();
}

}  // namespace sessa::jinja
