#include "server/jinja/builtins.h"

#include <initializer_list>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "server/jinja/operators.h"
#include "server/jinja/text.h"

namespace sessa::jinja {
namespace {

class Names {
 public:
  Names(std::initializer_list<BuiltinTable> tables) {
    for (const BuiltinTable& table : tables) {
      for (const Builtin* b = table.begin; b != table.end; ++b) by_name_.emplace(View(b->name), b);
    }
  }
  const Builtin* Find(std::string_view name) const {
    const auto it = by_name_.find(View(name));
    return it == by_name_.end() ? nullptr : it->second;
  }

 private:
  absl::flat_hash_map<absl::string_view, const Builtin*> by_name_;
};

bool IsOneOf(std::string_view name, std::initializer_list<std::string_view> names) {
  for (std::string_view n : names) {
    if (n == name) return true;
  }
  return false;
}

}  // namespace

Bound::Bound(const Builtin& builtin, Arguments arguments, Budget* budget)
    : budget_(budget), all_(std::move(arguments)) {
  std::string_view rest = builtin.parameters;
  if (rest == "*") return;
  const bool by_name = !rest.starts_with('/');
  size_t count = 0, num_named = 0;
  bool needed = true;
  for (absl::string_view word : absl::StrSplit(View(rest), ' ', absl::SkipEmpty())) {
    if (word == "/") continue;
    if (word == "|") {
      needed = false;
      continue;
    }
    const Value*& given = given_[count];
    if (count < all_.positional.size()) given = &all_.positional[count];
    for (const auto& [name, value] : all_.named) {
      if (!by_name || name != word) continue;
      if (given != nullptr) Fail(builtin, absl::StrCat("got multiple values for argument '", word, "'"));
      given = &value;
      ++num_named;
    }
    if (given == nullptr && needed) Fail(builtin, absl::StrCat("misses its argument '", word, "'"));
    ++count;
  }
  if (all_.positional.size() > count)
    Fail(builtin, absl::StrCat("takes at most ", count, " arguments, got ", all_.positional.size()));
  if (num_named < all_.named.size()) Fail(builtin, "got an unexpected keyword argument");
}

void Bound::Fail(const Builtin& builtin, std::string_view what) {
  budget_->Fail(absl::StrCat(View(builtin.name), "() ", View(what)));
}

bool Bound::Truth(int i, bool otherwise) const { return has(i) ? jinja::Truth(*given_[i]) : otherwise; }

int64_t Bound::Integer(int i, int64_t otherwise) const {
  if (!has(i)) return otherwise;
  if (const auto x = given_[i]->AsInteger()) return *x;
  budget_->Fail(absl::StrCat("'", TypeName(*given_[i]), "' object cannot be interpreted as an integer"));
  return otherwise;
}

const std::string& Bound::Text(int i) const {
  static const std::string empty;
  if (!has(i)) return empty;
  if (given_[i]->text() != nullptr) return *given_[i]->text();
  budget_->Fail(absl::StrCat("must be str, not ", TypeName(*given_[i])));
  return empty;
}

Value Call(const Builtin& builtin, const Value& self, Arguments arguments, Budget* budget) {
  const Bound bound(builtin, std::move(arguments), budget);
  return budget->Step() ? builtin.call(self, bound, budget) : Value();
}

const Builtin* FindFilter(std::string_view name) {
  static const Names names{TextFilters(),   ListFilters(),   ChoiceFilters(), ValueFilters(),
                           LayoutFilters(), MarkupFilters(), UrlizeFilters()};
  return names.Find(name);
}

const Builtin* FindTest(std::string_view name) {
  static const Names names{Tests()};
  return names.Find(name);
}

const Builtin* FindFunction(std::string_view name) {
  static const Names names{Functions()};
  return names.Find(name);
}

const Builtin* FindMethod(const Value& of, std::string_view name) {
  static const Names text{TextMethods(), SearchMethods()}, list{ListMethods()}, dict{DictMethods()};
  if (of.text() != nullptr) return text.Find(name);
  if (of.dict() != nullptr) return dict.Find(name);
  if (of.items() == nullptr && of.As<Range>() == nullptr) return nullptr;
  if (name == "copy" && of.kind() != Value::Kind::kList) return nullptr;
  return list.Find(name);
}

bool IsForbidden(const Value& of, std::string_view name) {
  if (of.kind() == Value::Kind::kList)
    return IsOneOf(name, {"append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"});
  return of.dict() != nullptr && IsOneOf(name, {"clear", "pop", "popitem", "setdefault", "update"});
}

}  // namespace sessa::jinja
