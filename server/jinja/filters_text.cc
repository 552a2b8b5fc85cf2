// Jinja2's filters of text.
#include <algorithm>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "server/jinja/builtins.h"
#include "server/jinja/format.h"
#include "server/jinja/iterate.h"
#include "server/jinja/operators.h"
#include "server/jinja/print.h"
#include "server/jinja/text.h"

namespace sessa::jinja {
namespace {

Value Remarked(Value text, const Value& as) {
  return as.is_markup() ? Value::MarkupOf(text.text_node()) : text;
}

template <Case to>
Value ToCase(const Value& self, const Bound&, Budget* budget) {
  const Value text = Str(self, budget);
  return budget->ok() ? Remarked(ChangeCase(*text.text(), to, budget), text) : Value();
}

// Words begin after white space and - ( { [ <, unlike those of Python's own title.
Value Title(const Value& self, const Bound&, Budget* budget) {
  const Value of = Str(self, budget);
  if (!budget->ok()) return {};
  const std::string_view text = *of.text();
  TextBuilder out(budget);
  const auto separates = [](char32_t c) {
    return IsSpace(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<';
  };
  for (size_t at = 0; at < text.size() && budget->ok();) {
    const size_t begin = at;
    if (separates(NextCharacter(text, &at))) {
      out.Append(text.substr(begin, at - begin));
      continue;
    }
    const Value first = ChangeCase(text.substr(begin, at - begin), Case::kUpper, budget);
    const size_t rest = at;
    for (size_t next = at; at < text.size() && !separates(NextCharacter(text, &next)); at = next) {
    }
    const Value others = ChangeCase(text.substr(rest, at - rest), Case::kLower, budget);
    if (!budget->ok()) break;
    out.Append(*first.text());
    out.Append(*others.text());
  }
  return out.Finish();
}

Value Trim(const Value& self, const Bound& args, Budget* budget) {
  const Value text = Str(self, budget);
  const std::string* chars = args.has_some(0) ? &args.Text(0) : nullptr;
  if (!budget->ok()) return {};
  const std::string_view left = StripLeft(*text.text(), chars, budget);
  return Remarked(budget->Text(StripRight(left, chars, budget)), text);
}

Value Replace(const Value& self, const Bound& args, Budget* budget) {
  const Value text = Str(self, budget);
  Arguments texts;
  texts.positional = {Str(args[0], budget), Str(args[1], budget)};
  if (args.has_some(2)) texts.positional.push_back(args[2]);
  if (!budget->ok()) return {};
  return Call(*FindMethod(text, "replace"), Value(text.text_node()), std::move(texts), budget);
}

Value Center(const Value& self, const Bound& args, Budget* budget) {
  const Value text = Str(self, budget);
  if (!budget->ok()) return {};
  Arguments width;
  width.positional = {args.ValueOr(0, Value(int64_t{80}))};
  return Call(*FindMethod(text, "center"), text, std::move(width), budget);
}

Value Indent(const Value& self, const Bound& args, Budget* budget) {
  if (self.text() == nullptr) {
    budget->Fail(self.is_defined() ? "indent takes a text" : self.UndefinedMessage());
    return {};
  }
  Value indention = args.ValueOr(0, Value(int64_t{4}));
  if (indention.text() == nullptr)
    indention = Arithmetic(Operator::kMultiply, Value::Literal(" "), indention, budget);
  if (!budget->ok() || indention.text() == nullptr) return {};
  const bool first = args.Truth(1, false), blank = args.Truth(2, false);
  TextBuilder out(budget);
  if (first) out.Append(*indention.text());
  const std::string with_newline = *self.text() + "\n";  // as Jinja adds it, for splitlines
  const ByteHold hold(budget, static_cast<int64_t>(with_newline.size()));
  bool begun = false;
  for (std::string_view line : SplitLines(with_newline, false, budget)) {
    if (begun) {
      out.Append("\n");
      if (blank || !line.empty()) out.Append(*indention.text());
    }
    begun = true;
    out.Append(line);
  }
  return Remarked(out.Finish(), self);
}

Value Truncate(const Value& self, const Bound& args, Budget* budget) {
  if (!HasLength(self) || (self.text() == nullptr && self.is_defined())) {
    budget->Fail("truncate takes a text");
    return {};
  }
  const Value end = args.ValueOr(2, Value::Literal("..."));
  const int64_t length = args.Integer(0, 255), leeway = args.has_some(3) ? args.Integer(3, 5) : 5;
  if (end.text() == nullptr) budget->Fail("truncate's end must be a text");
  if (!budget->ok()) return {};
  const int64_t end_size = CountCharacters(*end.text(), budget);
  if (length < end_size || leeway < 0) {
    budget->Fail(absl::StrCat("expected length >= ", end_size, " and leeway >= 0"));
    return {};
  }
  if (Length(self, budget) <= length + leeway) return self;
  std::string_view kept = std::string_view(*self.text()).substr(0, ByteOf(*self.text(), length - end_size));
  if (!args.Truth(1, false)) kept = kept.substr(0, kept.rfind(' '));
  TextBuilder out(budget);
  out.Append(kept);
  out.Append(*end.text());
  return out.Finish();
}

// Runs of \w: letters, digits, whatever is numeric, and _.
Value WordCount(const Value& self, const Bound&, Budget* budget) {
  const Value of = Str(self, budget);
  if (!budget->ok() || !budget->Step(static_cast<int64_t>(of.text()->size()) / 4)) return {};
  const std::string_view text = *of.text();
  int64_t count = 0;
  bool inside = false;
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    const bool word = NextCharacter(text, &at) == '_' ||
                      HasProperty(text.substr(begin, at - begin), Property::kAlnum, budget);
    if (word && !inside) ++count;
    inside = word;
  }
  return Value(count);
}

void AppendUrlQuoted(std::string_view text, bool in_query, TextBuilder* out) {
  static constexpr std::string_view kSafe = "_.-~";
  static constexpr char kHex[] = "0123456789ABCDEF";
  for (const char c : text) {
    if (std::isalnum(static_cast<unsigned char>(c)) || kSafe.find(c) != std::string_view::npos ||
        (c == '/' && !in_query)) {
      out->Append(std::string_view(&c, 1));
    } else if (c == ' ' && in_query) {
      out->Append("+");
    } else {
      const char escaped[3] = {'%', kHex[(c >> 4) & 15], kHex[c & 15]};
      out->Append(std::string_view(escaped, 3));
    }
  }
}

Value UrlEncode(const Value& self, const Bound&, Budget* budget) {
  TextBuilder out(budget);
  const auto quote = [&](const Value& v, bool in_query) {
    const Value text = Str(v, budget);
    if (budget->ok()) AppendUrlQuoted(*text.text(), in_query, &out);
  };
  if (self.text() != nullptr || !IsIterable(self)) {
    quote(self, false);
    return out.Finish();
  }
  Walk walk(self.dict() != nullptr ? Value(budget->Make<DictView>(self, DictView::What::kItems)) : self,
            budget);
  Value item;
  for (bool first = true; walk.Next(&item); first = false) {
    const Value pair = ListOf(item, budget);
    if (!budget->ok()) return {};
    if (pair.items()->size() != 2) budget->Fail("urlencode takes a text, a mapping, or pairs");
    if (!budget->ok()) return {};
    if (!first) out.Append("&");
    quote((*pair.items())[0], true);
    out.Append("=");
    quote((*pair.items())[1], true);
  }
  return out.Finish();
}

Value Escape(const Value& self, bool again, Budget* budget) {
  if (self.is_markup() && !again) return self;
  const Value text = Str(self, budget);
  TextBuilder out(budget);
  if (budget->ok()) AppendEscaped(*text.text(), &out);
  return out.FinishMarkup();
}

Value Format(const Value& self, const Bound& args, Budget* budget) {
  const Arguments& all = args.all();
  if (!all.positional.empty() && !all.named.empty()) {
    budget->Fail("can't handle positional and keyword arguments at the same time");
    return {};
  }
  const Value text = Str(self, budget);
  if (!budget->ok()) return {};
  if (all.named.empty()) return FormatPercent(text, budget->MakeTuple(all.positional), budget);
  DictBuilder dict(budget);
  for (const auto& [name, value] : all.named) dict.Put(budget->Text(name), value);
  return FormatPercent(text, dict.Finish(), budget);
}

constexpr Builtin kTextFilters[] = {
    {"upper", "", ToCase<Case::kUpper>},
    {"lower", "", ToCase<Case::kLower>},
    {"capitalize", "", ToCase<Case::kCapitalize>},
    {"title", "", Title},
    {"trim", "| chars", Trim},
    {"replace", "old new | count", Replace},
    {"center", "| width", Center},
    {"indent", "| width first blank", Indent},
    {"truncate", "| length killwords end leeway", Truncate},
    {"wordcount", "", WordCount},
    {"urlencode", "", UrlEncode},
    {"format", "*", Format},
    {"string", "", [](const Value& v, const Bound&, Budget* b) { return Str(v, b); }},
    {"safe", "",
     [](const Value& v, const Bound&, Budget* b) { return Value::MarkupOf(Str(v, b).text_node()); }},
    {"escape", "", [](const Value& v, const Bound&, Budget* b) { return Escape(v, false, b); }},
    {"e", "", [](const Value& v, const Bound&, Budget* b) { return Escape(v, false, b); }},
    {"forceescape", "", [](const Value& v, const Bound&, Budget* b) { return Escape(v, true, b); }},
};

}  // namespace

BuiltinTable TextFilters() { return {std::begin(kTextFilters), std::end(kTextFilters)}; }

}  // namespace sessa::jinja
