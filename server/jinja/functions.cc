// The functions that every chat template has: Jinja2's, and those that Hugging Face adds.
#include <ctime>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "server/jinja/builtins.h"
#include "server/jinja/callables.h"
#include "server/jinja/iterate.h"
#include "server/jinja/operators.h"
#include "server/jinja/print.h"
#include "server/jinja/text.h"

namespace sessa::jinja {
namespace {

constexpr int64_t kMaxRange = 100000;  // the sandbox's own bound

Value MakeRange(const Value&, const Bound& args, Budget* budget) {
  const size_t count = args.all().positional.size();
  if (count < 1 || count > 3 || !args.all().named.empty()) {
    budget->Fail("range takes one to three integers");
    return {};
  }
  int64_t bounds[3] = {0, 0, 1};
  for (size_t i = 0; i < count; ++i) {
    const auto x = args.all().positional[i].AsInteger();
    if (!x.has_value()) {
      budget->Fail(absl::StrCat("'", TypeName(args.all().positional[i]),
                                "' object cannot be interpreted as an integer"));
      return {};
    }
    bounds[i] = *x;
  }
  if (count == 1) bounds[1] = std::exchange(bounds[0], 0);
  const auto [start, stop, step] = bounds;
  if (step == 0) {
    budget->Fail("range() arg 3 must not be zero");
    return {};
  }
  int64_t length = 0;
  if (step > 0 ? start < stop : start > stop) {
    // Unsigned: the distance of two integers fits, and so does the step's size.
    const uint64_t distance = step > 0 ? static_cast<uint64_t>(stop) - static_cast<uint64_t>(start)
                                       : static_cast<uint64_t>(start) - static_cast<uint64_t>(stop);
    const uint64_t size = step > 0 ? static_cast<uint64_t>(step) : -static_cast<uint64_t>(step);
    const uint64_t steps = (distance - 1) / size + 1;
    if (steps > static_cast<uint64_t>(kMaxRange)) {
      budget->Fail(absl::StrCat("range too big: more than ", kMaxRange, " items"));
      return {};
    }
    length = static_cast<int64_t>(steps);
  }
  return Value(budget->Make<Range>(start, stop, step, length));
}

// dict(mapping or pairs, name=value...), into `out`.
void FillDict(const Bound& args, Budget* budget, DictBuilder* out) {
  if (args.all().positional.size() > 1) return budget->Fail("dict takes at most one mapping");
  for (const Value& from : args.all().positional) {
    const auto* space = from.As<Namespace>();
    if (from.dict() != nullptr || space != nullptr) {
      if (space != nullptr) return budget->Fail("'Namespace' object is not iterable");
      out->PutAll(*from.dict());
      continue;
    }
    Walk walk(from, budget);
    for (Value item; walk.Next(&item);) {
      const Value pair = ListOf(item, budget);
      if (!budget->ok()) return;
      if (pair.items()->size() != 2) return budget->Fail("dict takes a mapping, or pairs");
      out->Put((*pair.items())[0], (*pair.items())[1]);
    }
  }
  for (const auto& [name, value] : args.all().named) out->Put(budget->Text(name), value);
}

Value MakeDict(const Value&, const Bound& args, Budget* budget) {
  DictBuilder out(budget);
  FillDict(args, budget, &out);
  return out.Finish();
}

Value MakeNamespace(const Value&, const Bound& args, Budget* budget) {
  DictBuilder out(budget);
  FillDict(args, budget, &out);
  return budget->ok() ? budget->MakeNamespace(out.Release()) : Value();
}

// Of datetime.now() in the zone of the server's machine.
Value StrftimeNow(const Value&, const Bound& args, Budget* budget) {
  const std::string& format = args.Text(0);
  if (!budget->StepBytes(static_cast<int64_t>(format.size())) || format.empty()) return budget->Text("");
  const absl::Time now = absl::Now();
  const std::tm local = absl::ToTM(now, absl::LocalTimeZone());
  std::string with_micros;
  for (size_t i = 0; i < format.size(); ++i) {  // %f is Python's alone
    if (format[i] != '%' || i + 1 == format.size()) {
      with_micros += format[i];
    } else if (format[++i] == 'f') {
      const int64_t micros = absl::ToUnixMicros(now) % 1000000;
      with_micros += absl::StrCat(absl::Dec(micros, absl::kZeroPad6));
    } else if (format[i] == 'z' || format[i] == 'Z') {
      continue;  // empty: Python's now() knows no zone
    } else {
      with_micros += '%';
      with_micros += format[i];
    }
  }
  // No field of a date is longer than this; too long a text is an error rather than a loop.
  std::string out(with_micros.size() * 4 + 256, '\0');
  const ByteHold hold(budget, static_cast<int64_t>(out.size()));
  if (!budget->ok()) return {};
  out.resize(std::strftime(out.data(), out.size(), with_micros.c_str(), &local));
  return budget->Text(out);
}

Value RaiseException(const Value&, const Bound& args, Budget* budget) {
  const Value message = Str(args[0], budget);
  if (message.text() != nullptr) budget->Raise(*message.text());
  return {};
}

Value MakeCycler(const Value&, const Bound& args, Budget* budget) {
  if (args.all().positional.empty() || !args.all().named.empty()) {
    budget->Fail("at least one item has to be provided");
    return {};
  }
  return Value(budget->Make<Cycler>(budget->MakeTuple(args.all().positional)));
}

Value CyclerNext(const Value& self, const Bound&, Budget*) {
  auto* cycler = self.As<Cycler>();
  const List& items = *cycler->items.items();
  return items[std::exchange(cycler->at, (cycler->at + 1) % items.size())];
}

Value CyclerReset(const Value& self, const Bound&, Budget*) {
  self.As<Cycler>()->at = 0;
  return Value::None();
}

Value MakeJoiner(const Value&, const Bound& args, Budget* budget) {
  return Value(budget->Make<Joiner>(args.ValueOr(0, Value::Literal(", "))));
}

constexpr Builtin kFunctions[] = {
    {"range", "*", MakeRange},
    {"dict", "*", MakeDict},
    {"namespace", "*", MakeNamespace},
    {"strftime_now", "format", StrftimeNow},
    {"raise_exception", "message", RaiseException},
    {"cycler", "*", MakeCycler},
    {"joiner", "| sep", MakeJoiner},
};

constexpr Builtin kCyclerMethods[] = {{"next", "", CyclerNext}, {"reset", "", CyclerReset}};

}  // namespace

const Builtin* FindCyclerMethod(std::string_view name) {
  for (const Builtin& method : kCyclerMethods) {
    if (method.name == name) return &method;
  }
  return nullptr;
}

BuiltinTable Functions() { return {std::begin(kFunctions), std::end(kFunctions)}; }

}  // namespace sessa::jinja
