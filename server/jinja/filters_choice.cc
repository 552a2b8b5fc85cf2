// Jinja2's filters that take another filter or test by its name: map, select and their kin. As in Jinja, what
// they return computes an item when it is asked for it.
#include <iterator>
#include <optional>

#include "absl/strings/str_cat.h"
#include "server/jinja/attribute_path.h"
#include "server/jinja/builtins.h"
#include "server/jinja/iterate.h"
#include "server/jinja/operators.h"
#include "server/jinja/text.h"

namespace sessa::jinja {
namespace {

// A builtin by the name that a template computes, and what it is called with besides the item.
struct Named {
  const Builtin* builtin = nullptr;
  Arguments arguments;
  Value Apply(const Value& item, Budget* budget) const { return Call(*builtin, item, arguments, budget); }
};

std::optional<Named> Find(const Builtin* (*find)(std::string_view), const char* what, const Bound& args,
                          size_t at, Budget* budget) {
  const Value& name = args.all().positional[at];
  Named named;
  if (name.text() != nullptr) named.builtin = find(*name.text());
  if (named.builtin == nullptr) {
    budget->Fail(name.text() != nullptr ? absl::StrCat("No ", what, " named '", *name.text(), "'")
                                        : absl::StrCat("the name of a ", what, " must be a text"));
    return std::nullopt;
  }
  named.arguments.positional.assign(args.all().positional.begin() + at + 1, args.all().positional.end());
  named.arguments.named = args.all().named;
  return named;
}

int DepthOf(const Value& over, const Arguments& arguments) {
  int depth = over.depth();
  for (const Value& v : arguments.positional) depth = std::max(depth, v.depth());
  for (const auto& [name, v] : arguments.named) depth = std::max(depth, v.depth());
  return depth + 1;
}

// map('filter', ...) or map(attribute='a.b', default=...).
class Mapped : public Iterator {
 public:
  Mapped(const Value& over, Named named, std::optional<AttributePath> path, Value otherwise, Budget* budget)
      : Iterator(std::max(DepthOf(over, named.arguments), otherwise.depth() + 1)),
        walk_(over, budget),
        named_(std::move(named)),
        path_(std::move(path)),
        otherwise_(std::move(otherwise)) {}

  bool Next(Value* item, Budget* budget) override {
    Value from;
    if (!walk_.Next(&from)) return false;
    *item = path_.has_value() ? path_->Of(std::move(from), budget, otherwise_) : named_.Apply(from, budget);
    return budget->ok();
  }

 private:
  Walk walk_;
  const Named named_;
  const std::optional<AttributePath> path_;
  const Value otherwise_;
};

Value Map(const Value& self, const Bound& args, Budget* budget) {
  // As Jinja: what is false is not even looked at.
  if (!Truth(self))
    return Value(
        budget->Make<Mapped>(Value(), Named(), AttributePath(Value::None(), budget), Value::None(), budget));
  if (!args.all().positional.empty()) {
    auto named = Find(FindFilter, "filter", args, 0, budget);
    if (!named.has_value()) return {};
    return Value(budget->Make<Mapped>(self, *std::move(named), std::nullopt, Value::None(), budget));
  }
  Value attribute = Value::None(), otherwise = Value::None();
  bool has_attribute = false;
  for (const auto& [name, value] : args.all().named) {
    if (name == "attribute") {
      attribute = value;
      has_attribute = true;
    } else if (name == "default") {
      otherwise = value;
    } else {
      budget->Fail(absl::StrCat("Unexpected keyword argument '", name, "'"));
    }
  }
  if (!has_attribute) budget->Fail("map requires a filter argument");
  if (!budget->ok()) return {};
  return Value(budget->Make<Mapped>(self, Named(), AttributePath(attribute, budget), otherwise, budget));
}

// select, reject, selectattr and rejectattr: items that a test holds for, or their attribute.
class Selected : public Iterator {
 public:
  Selected(const Value& over, Named test, AttributePath path, bool wanted, Budget* budget)
      : Iterator(DepthOf(over, test.arguments)),
        walk_(over, budget),
        test_(std::move(test)),
        path_(std::move(path)),
        wanted_(wanted) {}

  bool Next(Value* item, Budget* budget) override {
    while (walk_.Next(item)) {
      const Value of = path_.Of(*item, budget);
      if (!budget->ok()) return false;
      if (Truth(test_.builtin == nullptr ? of : test_.Apply(of, budget)) == wanted_) return budget->ok();
    }
    return false;
  }

 private:
  Walk walk_;
  const Named test_;  // none: whether it is true
  const AttributePath path_;
  const bool wanted_;
};

template <bool by_attribute, bool wanted>
Value Select(const Value& self, const Bound& args, Budget* budget) {
  const size_t count = args.all().positional.size(), at = by_attribute ? 1 : 0;
  const bool any = Truth(self);
  if (any && count < at) budget->Fail("Missing parameter for attribute name");
  std::optional<Named> test = Named();
  if (any && budget->ok() && count > at) test = Find(FindTest, "test", args, at, budget);
  if (!budget->ok()) return {};
  const Value path = any && by_attribute ? args.all().positional[0] : Value::None();
  return Value(budget->Make<Selected>(any ? self : Value(), *std::move(test), AttributePath(path, budget),
                                      wanted, budget));
}

constexpr Builtin kChoiceFilters[] = {
    {"map", "*", Map},
    {"select", "*", Select<false, true>},
    {"reject", "*", Select<false, false>},
    {"selectattr", "*", Select<true, true>},
    {"rejectattr", "*", Select<true, false>},
};

}  // namespace

BuiltinTable ChoiceFilters() { return {std::begin(kChoiceFilters), std::end(kChoiceFilters)}; }

}  // namespace sessa::jinja
