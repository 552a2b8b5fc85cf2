// Python's methods of str that look at it, and those of list, tuple, range and dict.
#include <algorithm>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "server/jinja/builtins.h"
#include "server/jinja/iterate.h"
#include "server/jinja/operators.h"
#include "server/jinja/text.h"

namespace sessa::jinja {
namespace {

// self[start:end] for the arguments from `at` on: the bytes, and where they begin in characters and bytes.
struct Window {
  std::string_view text;
  int64_t first_character = 0;
  bool valid = true;  // Python finds nothing, not even "", behind the end
};
Window WindowOf(const Value& self, const Bound& args, int at, Budget* budget) {
  Window window{*self.text()};
  if (!args.has_some(at) && !args.has_some(at + 1)) return window;
  const int64_t n = CountCharacters(*self.text(), budget);
  const auto bound = [&](int i, int64_t otherwise) {
    if (!args.has_some(i)) return otherwise;
    const int64_t x = args.Integer(i, 0);
    return x < 0 ? std::max<int64_t>(0, x < -n ? 0 : x + n) : x;
  };
  const int64_t begin = bound(at, 0), end = std::min(bound(at + 1, n), n);
  window.valid = begin <= end && begin <= n;
  window.first_character = std::min(begin, n);
  const size_t first = ByteOf(window.text, window.first_character);
  const size_t last = std::max(first, ByteOf(window.text, end));
  window.text = window.text.substr(first, last - first);
  return window;
}

// find, rfind, index and rindex.
template <bool from_right, bool must_be>
Value Find(const Value& self, const Bound& args, Budget* budget) {
  const std::string& what = args.Text(0);
  const Window window = WindowOf(self, args, 1, budget);
  if (!budget->ok()) return {};
  const size_t at =
      from_right ? FindLastText(window.text, what, budget) : FindText(window.text, what, budget);
  if (at != std::string_view::npos && window.valid)
    return Value(window.first_character + CountCharacters(window.text.substr(0, at), budget));
  if (must_be) budget->Fail("substring not found");
  return Value(int64_t{-1});
}

Value Count(const Value& self, const Bound& args, Budget* budget) {
  const std::string& what = args.Text(0);
  const Window window = WindowOf(self, args, 1, budget);
  if (!budget->ok() || !window.valid) return Value(int64_t{0});
  if (what.empty()) return Value(CountCharacters(window.text, budget) + 1);
  int64_t count = 0;
  for (Finder finder(window.text, what, budget); finder.Next() != std::string_view::npos;) ++count;
  return Value(count);
}

template <bool ends>
Value HasAffix(const Value& self, const Bound& args, Budget* budget) {
  const Window window = WindowOf(self, args, 1, budget);
  const auto holds = [&](const Value& affix) {
    if (affix.text() == nullptr) {
      budget->Fail(absl::StrCat(ends ? "endswith" : "startswith", " arg must be str or a tuple of str, not ",
                                TypeName(affix)));
      return false;
    }
    const std::string_view text = *affix.text();
    budget->StepBytes(static_cast<int64_t>(text.size()));
    return window.valid && (ends ? window.text.ends_with(text) : window.text.starts_with(text));
  };
  if (!args[0].is_tuple()) return Value(holds(args[0]));
  for (const Value& affix : *args[0].items()) {
    if (!budget->Step()) break;
    if (holds(affix)) return Value(true);
  }
  return Value(false);
}

template <Property property>
Value Has(const Value& self, const Bound&, Budget* budget) {
  return Value(HasProperty(*self.text(), property, budget));
}

template <Case is>
Value Is(const Value& self, const Bound&, Budget* budget) {
  return Value(IsCase(*self.text(), is, budget));
}

Value IsIdentifier(const Value& self, const Bound&, Budget* budget) {
  const std::string_view text = *self.text();
  if (text.empty() || std::isdigit(static_cast<unsigned char>(text[0]))) return Value(false);
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    if (NextCharacter(text, &at) != '_' &&
        !HasProperty(text.substr(begin, at - begin), Property::kAlnum, budget))
      return Value(false);
  }
  return Value(true);
}

constexpr Builtin kSearchMethods[] = {
    {"find", "/ sub | start end", Find<false, false>},
    {"rfind", "/ sub | start end", Find<true, false>},
    {"index", "/ sub | start end", Find<false, true>},
    {"rindex", "/ sub | start end", Find<true, true>},
    {"count", "/ sub | start end", Count},
    {"startswith", "/ prefix | start end", HasAffix<false>},
    {"endswith", "/ suffix | start end", HasAffix<true>},
    {"isalpha", "/", Has<Property::kAlpha>},
    {"isalnum", "/", Has<Property::kAlnum>},
    {"isdecimal", "/", Has<Property::kDecimal>},
    {"isdigit", "/", Has<Property::kDigit>},
    {"isnumeric", "/", Has<Property::kNumeric>},
    {"isspace", "/", Has<Property::kSpace>},
    {"isprintable", "/", Has<Property::kPrintable>},
    {"isascii", "/", Has<Property::kAscii>},
    {"isupper", "/", Is<Case::kUpper>},
    {"islower", "/", Is<Case::kLower>},
    {"istitle", "/", Is<Case::kTitle>},
    {"isidentifier", "/", IsIdentifier},
};

Value CountItems(const Value& self, const Bound& args, Budget* budget) {
  int64_t count = 0;
  Walk walk(self, budget);
  for (Value item; walk.Next(&item);) count += item.IsSame(args[0]) || Equal(item, args[0], budget);
  return Value(count);
}

Value IndexOf(const Value& self, const Bound& args, Budget* budget) {
  const int64_t n = Length(self, budget);
  const auto bound = [&](int i, int64_t otherwise) {
    const int64_t x = args.Integer(i, otherwise);
    return x < 0 ? std::max<int64_t>(0, x < -n ? 0 : x + n) : x;
  };
  const int64_t begin = bound(1, 0), end = bound(2, n);
  Walk walk(self, budget);
  Value item;
  for (int64_t i = 0; walk.Next(&item) && i < end; ++i) {
    if (i >= begin && (item.IsSame(args[0]) || Equal(item, args[0], budget))) return Value(i);
  }
  budget->Fail("the value is not in the list");
  return {};
}

constexpr Builtin kListMethods[] = {
    {"count", "/ value", CountItems},
    {"index", "/ value | start stop", IndexOf},
    {"copy", "/", [](const Value& v, const Bound&, Budget*) { return v; }},
};

template <DictView::What what>
Value ViewOf(const Value& self, const Bound&, Budget* budget) {
  return Value(budget->Make<DictView>(self, what));
}

Value Get(const Value& self, const Bound& args, Budget* budget) {
  if (!IsHashable(args[0])) budget->Fail(absl::StrCat("unhashable type: '", TypeName(args[0]), "'"));
  const size_t at = FindKey(*self.dict(), args[0], budget);
  return at < self.dict()->size() ? (*self.dict())[at].second : args.ValueOr(1, Value::None());
}

constexpr Builtin kDictMethods[] = {
    {"get", "/ key | default", Get},
    {"keys", "/", ViewOf<DictView::What::kKeys>},
    {"values", "/", ViewOf<DictView::What::kValues>},
    {"items", "/", ViewOf<DictView::What::kItems>},
    {"copy", "/", [](const Value& v, const Bound&, Budget*) { return v; }},
};

}  // namespace

BuiltinTable SearchMethods() { return {std::begin(kSearchMethods), std::end(kSearchMethods)}; }
BuiltinTable ListMethods() { return {std::begin(kListMethods), std::end(kListMethods)}; }
BuiltinTable DictMethods() { return {std::begin(kDictMethods), std::end(kDictMethods)}; }

}  // namespace sessa::jinja
