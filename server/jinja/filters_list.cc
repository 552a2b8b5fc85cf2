// Jinja2's filters of lists and mappings.
#include <algorithm>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "server/jinja/attribute_path.h"
#include "server/jinja/builtins.h"
#include "server/jinja/iterate.h"
#include "server/jinja/later.h"
#include "server/jinja/members.h"
#include "server/jinja/operators.h"
#include "server/jinja/print.h"
#include "server/jinja/text.h"

namespace sessa::jinja {
namespace {

// Values with the keys that they are ordered by. An unordered pair fails the budget, and leaves any order.
using Keyed = std::vector<std::pair<Value, Value>>;

void Sort(Keyed* items, bool reverse, Budget* budget) {
  const ByteHold hold(budget, static_cast<int64_t>(2 * items->size() * sizeof(Keyed::value_type)));
  if (!budget->ok()) return;
  // In reverse Python keeps the order of equal ones too.
  std::stable_sort(items->begin(), items->end(), [&](const auto& a, const auto& b) {
    if (!budget->ok()) return false;
    return reverse ? Order(Operator::kLess, b.first, a.first, budget)
                   : Order(Operator::kLess, a.first, b.first, budget);
  });
}

Keyed WithKeys(const Value& over, const AttributePath& path, bool case_sensitive, Budget* budget) {
  Keyed items;
  Walk walk(over, budget);
  for (Value item; walk.Next(&item);) items.emplace_back(path.KeyOf(item, case_sensitive, budget), item);
  return items;
}

Value ValuesOf(Keyed items, Budget* budget) {
  ListBuilder out(budget);
  for (auto& [key, value] : items) out.Append(std::move(value));
  return out.Finish();
}

Value SortFilter(const Value& self, const Bound& args, Budget* budget) {
  const AttributePath path(args.ValueOr(2, Value::None()), budget, /*several=*/true);
  Keyed items = WithKeys(self, path, args.Truth(1, false), budget);
  Sort(&items, args.Truth(0, false), budget);
  return budget->ok() ? ValuesOf(std::move(items), budget) : Value();
}

Value DictSort(const Value& self, const Bound& args, Budget* budget) {
  const Value by = args.ValueOr(1, Value::Literal("key"));
  const bool by_value = by.text() != nullptr && *by.text() == "value";
  if (!by_value && (by.text() == nullptr || *by.text() != "key"))
    budget->Fail("You can only sort by either \"key\" or \"value\"");
  if (self.dict() == nullptr) budget->Fail("dictsort takes a mapping");
  if (!budget->ok()) return {};
  const AttributePath path(Value(int64_t{by_value ? 1 : 0}), budget);
  const Value view(budget->Make<DictView>(self, DictView::What::kItems));
  Keyed items = WithKeys(view, path, args.Truth(0, false), budget);
  Sort(&items, args.Truth(2, false), budget);
  return budget->ok() ? ValuesOf(std::move(items), budget) : Value();
}

template <Operator better>
Value Extreme(const Value& self, const Bound& args, Budget* budget) {
  const AttributePath path(args.ValueOr(1, Value::None()), budget);
  Keyed items = WithKeys(self, path, args.Truth(0, false), budget);
  size_t best = 0;
  for (size_t i = 1; i < items.size() && budget->ok(); ++i) {
    if (jinja::Order(better, items[i].first, items[best].first, budget)) best = i;
  }
  return items.empty() || !budget->ok() ? Value() : items[best].second;
}

Value Sum(const Value& self, const Bound& args, Budget* budget) {
  Value total = args.ValueOr(1, Value(int64_t{0}));
  if (total.text() != nullptr) budget->Fail("sum() can't sum strings");
  const AttributePath path(args.ValueOr(0, Value::None()), budget);
  Walk walk(self, budget);
  for (Value item; walk.Next(&item);)
    total = Arithmetic(Operator::kAdd, total, path.Of(std::move(item), budget), budget);
  return total;
}

Value Join(const Value& self, const Bound& args, Budget* budget) {
  const Value separator = Str(args.ValueOr(0, Value::Literal("")), budget);
  const AttributePath path(args.ValueOr(1, Value::None()), budget);
  if (!budget->ok()) return {};
  TextBuilder out(budget);
  Walk walk(self, budget);
  Value item;
  for (bool first = true; walk.Next(&item); first = false) {
    if (!first) out.Append(*separator.text());
    AppendStr(path.Of(std::move(item), budget), budget, &out);
  }
  return out.Finish();
}

Value First(const Value& self, const Bound&, Budget* budget) {
  Walk walk(self, budget);
  Value item;
  return walk.Next(&item) ? item : Value();
}

// Python draws anew each time. Here the same chat is the same prompt, so that only where there is nothing to
// draw there is an item.
Value Random(const Value& self, const Bound&, Budget* budget) {
  if (!HasLength(self) || self.dict() != nullptr) {
    budget->Fail("random takes a sequence");
    return {};
  }
  const Value items = ListOf(self, budget);
  if (!budget->ok() || items.items()->empty()) return {};
  if (items.items()->size() == 1) return items.items()->front();
  budget->Fail(absl::StrCat("random would draw one of ", items.items()->size(),
                            " items, and a chat's prompt is the same each time"));
  return {};
}

// Python's reversed takes no generator.
Value Last(const Value& self, const Bound&, Budget* budget) {
  if (self.is_defined() && !HasLength(self)) {
    budget->Fail(absl::StrCat("'", TypeName(self), "' object is not reversible"));
    return {};
  }
  const Value items = ListOf(self, budget);
  return !budget->ok() || items.items()->empty() ? Value() : items.items()->back();
}

// A generator, as Jinja's: over a list that is made at once.
class Remaining : public Iterator {
 public:
  explicit Remaining(Value items) : Iterator(items.depth() + 1), items_(std::move(items)) {}
  bool Next(Value* item, Budget*) override {
    if (at_ == items_.items()->size()) return false;
    *item = (*items_.items())[at_++];
    return true;
  }

 private:
  const Value items_;
  size_t at_ = 0;
};

Value AsGenerator(const Value& list, Budget* budget) {
  return list.items() != nullptr ? Value(budget->Make<Remaining>(list)) : Value();
}

Value Unique(const Value& self, const Bound& args, Budget* budget) {
  const AttributePath path(args.ValueOr(1, Value::None()), budget);
  ListBuilder out(budget);
  Dict keys;  // of values that live anyway
  for (auto& [key, value] : WithKeys(self, path, args.Truth(0, false), budget)) {
    if (!IsHashable(key)) budget->Fail(absl::StrCat("unhashable type: '", TypeName(key), "'"));
    if (!budget->ok()) return {};
    if (FindKey(keys, key, budget) < keys.size()) continue;
    keys.emplace_back(key, Value());
    out.Append(std::move(value));
  }
  return out.Finish();
}

Value Reverse(const Value& self, const Bound&, Budget* budget) {
  const Value backwards[3] = {Value::None(), Value::None(), Value(int64_t{-1})};
  if (self.text() != nullptr) return Slice(self, backwards, budget);
  const Value items = ListOf(self, budget);
  if (!budget->ok()) return {};
  const Value reversed = Slice(items, backwards, budget);
  return HasLength(self) ? AsGenerator(reversed, budget) : reversed;  // Python cannot go back in a generator
}

Value Batch(const Value& self, const Bound& args, Budget* budget) {
  const int64_t size = args.Integer(0, 1);
  ListBuilder batches(budget);
  List batch;
  Walk walk(self, budget);
  for (Value item; walk.Next(&item);) {
    if (static_cast<int64_t>(batch.size()) == size)
      batches.Append(budget->MakeList(std::exchange(batch, {})));
    batch.push_back(item);
  }
  if (!batch.empty()) {
    if (args.has_some(1) && budget->Step(std::max<int64_t>(0, size))) {
      while (static_cast<int64_t>(batch.size()) < size && budget->Step()) batch.push_back(args[1]);
    }
    batches.Append(budget->MakeList(std::move(batch)));
  }
  return batches.Finish();
}

Value SliceFilter(const Value& self, const Bound& args, Budget* budget) {
  const Value all = ListOf(self, budget);
  const int64_t slices = args.Integer(0, 1);
  if (slices == 0) budget->Fail("integer division or modulo by zero");
  if (!budget->ok()) return {};
  const List& items = *all.items();
  const auto length = static_cast<int64_t>(items.size());
  ListBuilder out(budget);
  for (int64_t i = 0, at = 0; i < slices && budget->Step(); ++i) {
    const int64_t size = length / slices + (i < length % slices ? 1 : 0);
    List slice(items.begin() + at, items.begin() + at + size);
    if (args.has_some(1) && i >= length % slices) slice.push_back(args[1]);
    out.Append(budget->MakeList(std::move(slice)));
    at += size;
  }
  return out.Finish();
}

Value GroupBy(const Value& self, const Bound& args, Budget* budget) {
  const AttributePath path(args[0], budget);
  const bool case_sensitive = args.Truth(2, false);
  const Value otherwise = args.ValueOr(1, Value::None());
  Keyed items;
  Walk walk(self, budget);
  for (Value item; walk.Next(&item);) {
    Value key = path.Of(item, budget, otherwise);
    if (!case_sensitive && key.text() != nullptr && budget->ok())
      key = ChangeCase(*key.text(), Case::kLower, budget);
    items.emplace_back(std::move(key), item);
  }
  Sort(&items, false, budget);
  ListBuilder groups(budget);
  for (size_t begin = 0; begin < items.size() && budget->ok();) {
    size_t end = begin + 1;
    while (end < items.size() && Equal(items[begin].first, items[end].first, budget)) ++end;
    List group;
    for (size_t i = begin; i < end; ++i) group.push_back(items[i].second);
    // The attribute as the first of them has it, in its own case.
    const Value name = case_sensitive ? items[begin].first : path.Of(group[0], budget, otherwise);
    groups.Append(budget->MakeTuple({name, budget->MakeList(std::move(group))}));
    begin = end;
  }
  return groups.Finish();
}

Value Items(const Value& self, const Bound&, Budget* budget) {
  if (!self.is_defined()) return self;
  if (self.dict() != nullptr) return Value(budget->Make<DictView>(self, DictView::What::kItems));
  budget->Fail("Can only get item pairs from a mapping.");
  return {};
}

Value Count(const Value& v, const Bound&, Budget* budget) { return Value(Length(v, budget)); }

constexpr Builtin kUnique{"unique", "| case_sensitive attribute", Unique};
constexpr Builtin kBatch{"batch", "linecount | fill_with", Batch};
constexpr Builtin kSlice{"slice", "slices | fill_with", SliceFilter};
constexpr Builtin kItems{"items", "", Items};

constexpr Builtin kListFilters[] = {
    {"first", "", First},
    {"last", "", Last},
    {"random", "", Random},
    {"length", "", Count},
    {"count", "", Count},
    {"list", "", [](const Value& v, const Bound&, Budget* b) { return ListOf(v, b); }},
    {"reverse", "", Reverse},
    {"sort", "| reverse case_sensitive attribute", SortFilter},
    {"dictsort", "| case_sensitive by reverse", DictSort},
    {kUnique.name, kUnique.parameters, Lazily<&kUnique>},
    {"min", "| case_sensitive attribute", Extreme<Operator::kLess>},
    {"max", "| case_sensitive attribute", Extreme<Operator::kGreater>},
    {"sum", "| attribute start", Sum},
    {"join", "| d attribute", Join},
    {kBatch.name, kBatch.parameters, Lazily<&kBatch>},
    {kSlice.name, kSlice.parameters, Lazily<&kSlice>},
    {"groupby", "attribute | default case_sensitive", GroupBy},
    {kItems.name, kItems.parameters, Lazily<&kItems>},
};

}  // namespace

BuiltinTable ListFilters() { return {std::begin(kListFilters), std::end(kListFilters)}; }

}  // namespace sessa::jinja
