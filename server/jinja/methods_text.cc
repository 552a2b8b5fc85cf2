// Python's methods of str that change or cut it; those that look are in methods_search.cc. On markup they
// give markup, and escape what they are given, as markupsafe does.
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

Value Like(const Value& self, Value text) {
  return self.is_markup() ? Value::MarkupOf(text.text_node()) : text;
}
Value Piece(const Value& self, std::string_view piece, Budget* budget) {
  return Like(self, budget->Text(piece));
}

// An argument as a text to go into `self`.
std::string Inserted(const Value& self, const Bound& args, int i, Budget* budget) {
  const std::string& text = args.Text(i);
  if (!self.is_markup() || !args.has(i) || args[i].is_markup()) return text;
  TextBuilder out(budget);
  AppendEscaped(text, &out);
  return out.Release();
}

template <Case to>
Value ToCase(const Value& self, const Bound&, Budget* budget) {
  return Like(self, ChangeCase(*self.text(), to, budget));
}

template <bool left, bool right>
Value Strip(const Value& self, const Bound& args, Budget* budget) {
  const std::string* chars = args.has_some(0) ? &args.Text(0) : nullptr;
  std::string_view text = *self.text();
  if (left) text = StripLeft(text, chars, budget);
  if (right) text = StripRight(text, chars, budget);
  return text.size() == self.text()->size() ? self : Piece(self, text, budget);
}

Value Replace(const Value& self, const Bound& args, Budget* budget) {
  const std::string old = Inserted(self, args, 0, budget), with = Inserted(self, args, 1, budget);
  int64_t count = args.Integer(2, -1);
  if (!budget->ok()) return {};
  const std::string_view text = *self.text();
  TextBuilder out(budget);
  size_t at = 0;
  if (old.empty()) {  // before each character, and at the end
    while (count != 0 && budget->ok()) {
      out.Append(with);
      --count;
      if (at == text.size()) break;
      const size_t size = CharacterSize(text, at);
      out.Append(text.substr(at, size));
      at += size;
    }
    out.Append(text.substr(at));
    return Like(self, out.Finish());
  }
  for (Finder finder(text, old, budget); count != 0 && budget->ok(); --count) {
    const size_t found = finder.Next();
    if (found == std::string_view::npos) break;
    out.Append(text.substr(at, found - at));
    out.Append(with);
    at = found + old.size();
  }
  out.Append(text.substr(at));
  return Like(self, out.Finish());
}

// The pieces between runs of white space.
Value SplitSpace(const Value& self, int64_t limit, bool from_right, Budget* budget) {
  std::string_view rest = *self.text();
  List pieces;
  if (!budget->Step(static_cast<int64_t>(rest.size()) / 8)) return {};
  while (budget->Step()) {
    rest = from_right ? StripRight(rest, nullptr, budget) : StripLeft(rest, nullptr, budget);
    if (rest.empty()) break;
    size_t cut = 0;
    if (limit != 0 && from_right) {
      for (cut = rest.size(); cut > 0 && !IsSpace(LastCharacter(rest.substr(0, cut)));) {
        do --cut;
        while (cut > 0 && (rest[cut] & 0xc0) == 0x80);
      }
    } else if (limit != 0) {
      for (size_t next = 0; cut < rest.size() && !IsSpace(NextCharacter(rest, &next)); cut = next) {
      }
    }
    const bool last = limit-- == 0;
    const std::string_view piece = last ? rest : from_right ? rest.substr(cut) : rest.substr(0, cut);
    pieces.push_back(Piece(self, piece, budget));
    if (last) break;
    rest = from_right ? rest.substr(0, cut) : rest.substr(cut);
  }
  if (from_right) std::reverse(pieces.begin(), pieces.end());
  return budget->MakeList(std::move(pieces));
}

template <bool from_right>
Value Split(const Value& self, const Bound& args, Budget* budget) {
  int64_t limit = args.Integer(1, -1);
  if (!args.has_some(0)) return SplitSpace(self, limit, from_right, budget);
  const std::string& separator = args.Text(0);
  if (budget->ok() && separator.empty()) budget->Fail("empty separator");
  if (!budget->ok()) return {};
  const std::string_view text = *self.text();
  List pieces;
  if (from_right && limit >= 0) {
    std::string_view rest = text;
    for (; limit > 0 && budget->Step(); --limit) {
      const size_t found = FindLastText(rest, separator, budget);
      if (found == std::string_view::npos) break;
      pieces.push_back(Piece(self, rest.substr(found + separator.size()), budget));
      rest = rest.substr(0, found);
    }
    pieces.push_back(Piece(self, rest, budget));
    std::reverse(pieces.begin(), pieces.end());
    return budget->MakeList(std::move(pieces));
  }
  size_t at = 0;
  ListBuilder out(budget);
  for (Finder finder(text, separator, budget); limit != 0 && budget->ok(); --limit) {
    const size_t found = finder.Next();
    if (found == std::string_view::npos) break;
    out.Append(Piece(self, text.substr(at, found - at), budget));
    at = found + separator.size();
  }
  out.Append(Piece(self, text.substr(at), budget));
  return out.Finish();
}

template <bool from_right>
Value Partition(const Value& self, const Bound& args, Budget* budget) {
  const std::string& separator = args.Text(0);
  if (budget->ok() && separator.empty()) budget->Fail("empty separator");
  if (!budget->ok()) return {};
  const std::string_view text = *self.text();
  const size_t at = from_right ? FindLastText(text, separator, budget) : FindText(text, separator, budget);
  if (at == std::string_view::npos) {
    const Value none = Piece(self, "", budget);
    return from_right ? budget->MakeTuple({none, none, self}) : budget->MakeTuple({self, none, none});
  }
  return budget->MakeTuple({Piece(self, text.substr(0, at), budget), Piece(self, separator, budget),
                            Piece(self, text.substr(at + separator.size()), budget)});
}

Value SplitLinesOf(const Value& self, const Bound& args, Budget* budget) {
  ListBuilder out(budget);
  for (std::string_view line : SplitLines(*self.text(), args.Truth(0, false), budget))
    out.Append(Piece(self, line, budget));
  return out.Finish();
}

Value Join(const Value& self, const Bound& args, Budget* budget) {
  TextBuilder out(budget);
  Walk walk(args[0], budget);
  Value item;
  for (int64_t i = 0; walk.Next(&item); ++i) {
    if (i > 0) out.Append(*self.text());
    if (item.text() == nullptr && !self.is_markup()) {
      budget->Fail(absl::StrCat("sequence item ", i, ": expected str instance, ", TypeName(item), " found"));
      return {};
    }
    const Value text = Str(item, budget);
    if (!budget->ok()) return {};
    if (self.is_markup() && !item.is_markup())
      AppendEscaped(*text.text(), &out);
    else
      out.Append(*text.text());
  }
  return Like(self, out.Finish());
}

// To a width, with blanks or another character.
enum class Side { kLeft, kRight, kBoth };
template <Side side>
Value Justify(const Value& self, const Bound& args, Budget* budget) {
  const int64_t width = args.Integer(0, 0), size = CountCharacters(*self.text(), budget);
  const std::string fill = args.has(1) ? args.Text(1) : " ";
  if (CountCharacters(fill, budget) != 1)
    budget->Fail("The fill character must be exactly one character long");
  const int64_t pad = width - size;
  if (pad <= 0 || !budget->ok()) return self;
  // Python puts the odd one of both sides by the width.
  const int64_t before = side == Side::kLeft ? 0 : side == Side::kRight ? pad : pad / 2 + (pad & width & 1);
  if (!budget->Step(pad)) return {};
  TextBuilder out(budget);
  out.Reserve(self.text()->size() + static_cast<size_t>(pad) * fill.size());
  for (int64_t i = 0; i < before && budget->ok(); ++i) out.Append(fill);
  out.Append(*self.text());
  for (int64_t i = before; i < pad && budget->ok(); ++i) out.Append(fill);
  return Like(self, out.Finish());
}

Value FillZeros(const Value& self, const Bound& args, Budget* budget) {
  const int64_t pad = args.Integer(0, 0) - CountCharacters(*self.text(), budget);
  const std::string_view text = *self.text();
  const size_t sign = !text.empty() && (text[0] == '-' || text[0] == '+') ? 1 : 0;
  if (!budget->Step(std::max<int64_t>(pad, 0))) return {};
  TextBuilder out(budget);
  out.Append(text.substr(0, sign));
  for (int64_t i = 0; i < pad && budget->ok(); ++i) out.Append("0");
  out.Append(text.substr(sign));
  return Like(self, out.Finish());
}

template <bool suffix>
Value RemoveAffix(const Value& self, const Bound& args, Budget* budget) {
  const std::string& affix = args.Text(0);
  const std::string_view text = *self.text();
  if (affix.empty() || !(suffix ? text.ends_with(affix) : text.starts_with(affix))) return self;
  return Piece(self, suffix ? text.substr(0, text.size() - affix.size()) : text.substr(affix.size()), budget);
}

Value ExpandTabs(const Value& self, const Bound& args, Budget* budget) {
  const int64_t size = args.Integer(0, 8);
  TextBuilder out(budget);
  int64_t column = 0;
  const std::string_view text = *self.text();
  for (size_t at = 0; at < text.size() && budget->ok();) {
    const size_t begin = at;
    const char32_t c = NextCharacter(text, &at);
    if (c == '\t') {
      for (int64_t n = size > 0 ? size - column % size : 0; n > 0 && budget->ok(); --n, ++column)
        out.Append(" ");
      continue;
    }
    out.Append(text.substr(begin, at - begin));
    column = c == '\n' || c == '\r' ? 0 : column + 1;
  }
  return Like(self, out.Finish());
}

Value Format(const Value& self, const Bound& args, Budget* budget) {
  return FormatBraces(self, args.all(), budget);
}

Value FormatMap(const Value& self, const Bound& args, Budget* budget) {
  Arguments by_name;
  if (args[0].dict() == nullptr) {
    budget->Fail("format_map takes a mapping");
    return {};
  }
  for (const auto& [key, value] : *args[0].dict()) {
    if (key.text() != nullptr && budget->Step()) by_name.named.emplace_back(*key.text(), value);
  }
  return FormatBraces(self, by_name, budget);
}

constexpr Builtin kTextMethods[] = {
    {"upper", "/", ToCase<Case::kUpper>},
    {"lower", "/", ToCase<Case::kLower>},
    {"title", "/", ToCase<Case::kTitle>},
    {"capitalize", "/", ToCase<Case::kCapitalize>},
    {"swapcase", "/", ToCase<Case::kSwap>},
    {"casefold", "/", ToCase<Case::kFold>},
    {"strip", "/ | chars", Strip<true, true>},
    {"lstrip", "/ | chars", Strip<true, false>},
    {"rstrip", "/ | chars", Strip<false, true>},
    {"replace", "/ old new | count", Replace},
    {"split", "| sep maxsplit", Split<false>},
    {"rsplit", "| sep maxsplit", Split<true>},
    {"partition", "/ sep", Partition<false>},
    {"rpartition", "/ sep", Partition<true>},
    {"splitlines", "| keepends", SplitLinesOf},
    {"join", "/ iterable", Join},
    {"ljust", "/ width | fillchar", Justify<Side::kLeft>},
    {"rjust", "/ width | fillchar", Justify<Side::kRight>},
    {"center", "/ width | fillchar", Justify<Side::kBoth>},
    {"zfill", "/ width", FillZeros},
    {"removeprefix", "/ prefix", RemoveAffix<false>},
    {"removesuffix", "/ suffix", RemoveAffix<true>},
    {"expandtabs", "| tabsize", ExpandTabs},
    {"format", "*", Format},
    {"format_map", "/ mapping", FormatMap},
};

}  // namespace

BuiltinTable TextMethods() { return {std::begin(kTextMethods), std::end(kTextMethods)}; }

}  // namespace sessa::jinja
