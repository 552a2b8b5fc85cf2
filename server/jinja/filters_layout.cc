// Jinja2's filters that lay out: pprint, as Python's pprint.pformat with its defaults, and wordwrap, as
// Python's textwrap.
#include <algorithm>
#include <iterator>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/jinja/builtins.h"
#include "server/jinja/iterate.h"
#include "server/jinja/operators.h"
#include "server/jinja/print.h"
#include "server/jinja/text.h"

namespace sessa::jinja {
namespace {

using Kind = Value::Kind;

// Keys in pprint's order: by value where Python can compare them, else by the names of their types.
bool KeyLess(const Value& a, const Value& b) {
  if (a.text() != nullptr && b.text() != nullptr) return *a.text() < *b.text();
  const auto x = a.AsInteger(), y = b.AsInteger();
  if (x.has_value() && y.has_value()) return *x < *y;
  if (a.is_number() && b.is_number()) return a.AsReal() < b.AsReal();
  if (a.is_tuple() && b.is_tuple())
    return std::lexicographical_compare(a.items()->begin(), a.items()->end(), b.items()->begin(),
                                        b.items()->end(), KeyLess);
  return TypeName(a) < TypeName(b);
}

class PrettyPrinter {
 public:
  PrettyPrinter(Budget* budget, TextBuilder* out) : budget_(budget), out_(out) {}

  // The value with its mappings sorted.
  Value Sorted(const Value& v) {
    if (v.dict() != nullptr) {
      Dict items = *v.dict();
      const ByteHold hold(budget_, static_cast<int64_t>(items.size() * sizeof(items[0])));
      if (!budget_->Step(static_cast<int64_t>(items.size()))) return {};
      for (size_t i = 0; items.size() > 1 && i < items.size(); ++i) {
        if (!items[i].first.is_defined())
          budget_->Fail(items[i].first.UndefinedMessage());  // on comparing it
      }
      std::stable_sort(items.begin(), items.end(),
                       [](const auto& a, const auto& b) { return KeyLess(a.first, b.first); });
      DictBuilder dict(budget_);
      for (const auto& [key, value] : items) dict.Add(key, Sorted(value));
      return dict.Finish();
    }
    if (v.items() == nullptr) return v;
    ListBuilder list(budget_);
    for (const Value& item : *v.items()) list.Append(Sorted(item));
    return v.is_tuple() ? list.FinishTuple() : list.Finish();
  }

  // Writes the value on one line where that fits into what `indent` characters before it and `allowance`
  // behind it leave.
  void Format(const Value& v, int64_t indent, int64_t allowance, bool outermost = false) {
    const Value text = Repr(v, budget_);
    if (!budget_->ok()) return;
    if (CountCharacters(*text.text(), budget_) <= kWidth - indent - allowance)
      return out_->Append(*text.text());
    switch (v.kind()) {
      case Kind::kText:
        return v.text()->empty() ? out_->Append(*text.text())
                                 : Pieces(*v.text(), indent, allowance, outermost);
      case Kind::kList: return Items(v, "[", "]", indent, allowance);
      case Kind::kTuple: return Items(v, "(", v.items()->size() == 1 ? ",)" : ")", indent, allowance);
      case Kind::kDict: return Mapping(*v.dict(), indent, allowance);
      default: return out_->Append(*text.text());
    }
  }

 private:
  static constexpr int64_t kWidth = 80;

  void NewLine(std::string_view before, int64_t indent) {
    out_->Append(before);
    out_->Append("\n");
    out_->Append(std::string(static_cast<size_t>(indent), ' '));
  }

  void Items(const Value& v, std::string_view open, std::string_view close, int64_t indent,
             int64_t allowance) {
    out_->Append(open);
    const List& items = *v.items();
    for (size_t i = 0; i < items.size() && budget_->ok(); ++i) {
      if (i > 0) NewLine(",", indent + 1);
      const bool is_last = i + 1 == items.size();
      Format(items[i], indent + 1, is_last ? allowance + static_cast<int64_t>(close.size()) : 1);
    }
    out_->Append(close);
  }

  void Mapping(const Dict& dict, int64_t indent, int64_t allowance) {
    out_->Append("{");
    for (size_t i = 0; i < dict.size() && budget_->ok(); ++i) {
      if (i > 0) NewLine(",", indent + 1);
      const Value key = Repr(dict[i].first, budget_);
      if (!budget_->ok()) return;
      out_->Append(*key.text());
      out_->Append(": ");
      Format(dict[i].second, indent + 3 + CountCharacters(*key.text(), budget_),
             i + 1 == dict.size() ? allowance + 1 : 1);
    }
    out_->Append("}");
  }

  int64_t ReprSize(std::string_view text, Value* repr) {
    *repr = Repr(budget_->Text(text), budget_);
    return budget_->ok() ? CountCharacters(*repr->text(), budget_) : 0;
  }

  // A text as several literals below each other, cut behind lines and words.
  void Pieces(std::string_view text, int64_t indent, int64_t allowance, bool outermost) {
    if (outermost) ++indent, ++allowance;
    ListBuilder pieces(budget_);
    Value repr;
    const std::vector<std::string_view> lines = SplitLines(text, /*keep_ends=*/true, budget_);
    int64_t num_pieces = 0;
    const auto add = [&](std::string_view piece) {
      ReprSize(piece, &repr);
      pieces.Append(repr);
      ++num_pieces;
    };
    for (size_t i = 0; i < lines.size() && budget_->ok(); ++i) {
      const bool last_line = i + 1 == lines.size();
      if (ReprSize(lines[i], &repr) <= kWidth - indent - (last_line ? allowance : 0)) {
        add(lines[i]);
        continue;
      }
      std::string_view current;  // of whole words
      for (size_t at = 0; at < lines[i].size() && budget_->ok();) {
        const size_t end = EndOfWord(lines[i], at);
        const bool last = last_line && end == lines[i].size();
        const std::string_view longer = lines[i].substr(at - current.size(), current.size() + end - at);
        if (ReprSize(longer, &repr) > kWidth - indent - (last ? allowance : 0)) {
          if (!current.empty()) add(current);
          current = lines[i].substr(at, end - at);
        } else {
          current = longer;
        }
        at = end;
      }
      if (!current.empty()) add(current);
    }
    const Value all = pieces.Finish();
    if (!budget_->ok()) return;
    const bool in_parentheses = outermost && num_pieces > 1;
    if (in_parentheses) out_->Append("(");
    for (size_t i = 0; i < all.items()->size(); ++i) {
      if (i > 0) NewLine("", indent);
      out_->Append(*(*all.items())[i].text());
    }
    if (in_parentheses) out_->Append(")");
  }

  // Behind the word at `at` and the white space after it.
  static size_t EndOfWord(std::string_view text, size_t at) {
    for (bool space = false; at < text.size();) {
      size_t next = at;
      const bool is_space = IsSpace(NextCharacter(text, &next));
      if (space && !is_space) break;
      space = is_space;
      at = next;
    }
    return at;
  }

  Budget* const budget_;
  TextBuilder* const out_;
};

Value Pprint(const Value& self, const Bound&, Budget* budget) {
  TextBuilder out(budget);
  PrettyPrinter printer(budget, &out);
  const Value sorted = printer.Sorted(self);
  if (budget->ok()) printer.Format(sorted, 0, 0, /*outermost=*/true);
  return out.Finish();
}

// One line's text in the pieces between which it may be broken; characters, as Python counts.
class Chunks {
 public:
  Chunks(std::string_view line, bool on_hyphens, Budget* budget) : line_(line) {
    begins_.reserve(line.size() + 1);
    kinds_.reserve(line.size());
    for (size_t at = 0; at < line.size();) {
      begins_.push_back(at);
      const size_t begin = at;
      const char32_t c = NextCharacter(line, &at);
      const std::string_view bytes = line.substr(begin, at - begin);
      const bool word = c == '_' || HasProperty(bytes, Property::kAlnum, budget);
      kinds_.push_back({c, word, word && c != '_' && !HasProperty(bytes, Property::kDecimal, budget)});
      if (c == '_') kinds_.back().letter = true;  // as [^\d\W] has it
    }
    begins_.push_back(line.size());
    for (size_t begin = 0; begin < kinds_.size() && budget->ok();) {
      const size_t end = IsBlank(begin) ? EndOfBlanks(begin) : EndOfPart(begin, on_hyphens);
      chunks_.emplace_back(begin, end);
      begin = end;
    }
  }

  struct Chunk {
    Chunk(size_t begin, size_t end) : begin(begin), end(end) {}
    int64_t size() const { return static_cast<int64_t>(end - begin); }
    size_t begin, end;  // characters
  };
  std::vector<Chunk>& chunks() { return chunks_; }
  std::string_view Text(size_t begin, size_t end) const {
    return line_.substr(begins_[begin], begins_[end] - begins_[begin]);
  }
  bool IsSpaces(const Chunk& chunk) const {  // str.strip leaves nothing
    for (size_t i = chunk.begin; i < chunk.end; ++i) {
      if (!IsSpace(kinds_[i].c)) return false;
    }
    return true;
  }
  // One behind the last hyphen of [begin, end) that something else stands before; none: 0.
  size_t AfterHyphen(size_t begin, size_t end) const {
    for (size_t i = end; i-- > begin + 1;) {
      if (kinds_[i].c != '-') continue;
      for (size_t j = begin; j < i; ++j) {
        if (kinds_[j].c != '-') return i + 1;
      }
      return 0;
    }
    return 0;
  }

 private:
  struct CharacterKind {
    char32_t c;
    bool word, letter;  // \w and [^\d\W]
  };

  bool IsBlank(size_t i) const {  // textwrap's white space is ASCII's
    const char32_t c = kinds_[i].c;
    return c == ' ' || (c >= '\t' && c <= '\r');
  }
  bool IsLetter(size_t i) const { return i < kinds_.size() && kinds_[i].letter; }
  bool IsHyphen(size_t i) const { return i < kinds_.size() && kinds_[i].c == '-'; }
  bool IsPunctuatedWord(size_t i) const {
    return kinds_[i].word ||
           (kinds_[i].c < 128 &&
            std::string_view("!\"'&.,?").find(static_cast<char>(kinds_[i].c)) != std::string_view::npos);
  }
  size_t EndOfBlanks(size_t i) const {
    while (i < kinds_.size() && IsBlank(i)) ++i;
    return i;
  }
  // Behind the hyphens at i, at least two, that a word follows; else i.
  size_t EndOfDash(size_t i) const {
    size_t end = i;
    while (IsHyphen(end)) ++end;
    return end - i >= 2 && end < kinds_.size() && kinds_[end].word ? end : i;
  }
  size_t EndOfPart(size_t begin, bool on_hyphens) {
    size_t i = begin;
    if (on_hyphens && begin > 0 && IsPunctuatedWord(begin - 1) && EndOfDash(begin) > begin)
      return EndOfDash(begin);
    for (++i; i <= kinds_.size(); ++i) {  // [begin, i) may be a part
      if (i == kinds_.size() || IsBlank(i)) return i;
      if (!on_hyphens) continue;
      const bool hyphenated = IsHyphen(i) && i >= 2 && IsLetter(i - 1) &&
                              (IsLetter(i - 2) || (i >= 3 && IsHyphen(i - 2) && IsLetter(i - 3))) &&
                              IsLetter(i + 1) && (IsLetter(i + 2) || (IsHyphen(i + 2) && IsLetter(i + 3)));
      if (hyphenated) return i + 1;
      if (IsPunctuatedWord(i - 1) && EndOfDash(i) > i) return i;
    }
    return kinds_.size();
  }

  const std::string_view line_;
  std::vector<size_t> begins_;  // [character + 1] bytes
  std::vector<CharacterKind> kinds_;
  std::vector<Chunk> chunks_;
};

struct WrapStyle {
  int64_t width = 79;
  bool break_words = true, on_hyphens = true;
};

// Adds the lines that `line` becomes, each with `separator` before it but the first of all.
void WrapLine(std::string_view line, const WrapStyle& style, std::string_view separator, Budget* budget,
              TextBuilder* out) {
  const ByteHold hold(budget, static_cast<int64_t>(line.size()) * 48);  // what Chunks has for a character
  if (!budget->StepBytes(static_cast<int64_t>(line.size()) * 8)) return;
  Chunks split(line, style.on_hyphens, budget);
  std::vector<Chunks::Chunk>& chunks = split.chunks();
  bool first = true;
  for (size_t next = 0; next < chunks.size() && budget->Step();) {
    if (!first && split.IsSpaces(chunks[next])) ++next;
    std::vector<Chunks::Chunk> taken;
    int64_t size = 0;
    while (next < chunks.size() && size + chunks[next].size() <= style.width) {
      size += chunks[next].size();
      taken.push_back(chunks[next++]);
    }
    if (next < chunks.size() && chunks[next].size() > style.width) {
      Chunks::Chunk& chunk = chunks[next];
      if (style.break_words) {
        size_t end = std::min(chunk.end, chunk.begin + static_cast<size_t>(style.width - size));
        if (const size_t hyphen = split.AfterHyphen(chunk.begin, end); style.on_hyphens && hyphen > 0)
          end = hyphen;
        taken.emplace_back(chunk.begin, end);
        chunk.begin = end;
      } else if (taken.empty()) {
        taken.push_back(chunks[next++]);
      }
    }
    if (!taken.empty() && split.IsSpaces(taken.back())) taken.pop_back();
    if (taken.empty()) continue;
    if (!first) out->Append(separator);
    first = false;
    out->Append(split.Text(taken.front().begin, taken.back().end));
  }
}

Value WordWrap(const Value& self, const Bound& args, Budget* budget) {
  WrapStyle style;
  style.width = args.Integer(0, 79);
  style.break_words = args.Truth(1, true);
  const std::string separator = args.has_some(2) ? args.Text(2) : "\n";
  style.on_hyphens = args.Truth(3, true);
  if (self.text() == nullptr)
    budget->Fail(self.is_defined() ? "wordwrap takes a text" : self.UndefinedMessage());
  if (!budget->ok()) return {};
  TextBuilder out(budget);
  bool first = true;
  for (const std::string_view line : SplitLines(*self.text(), /*keep_ends=*/false, budget)) {
    if (style.width <= 0) budget->Fail(absl::StrCat("invalid width ", style.width, " (must be > 0)"));
    if (!first) out.Append(separator);
    first = false;
    WrapLine(line, style, separator, budget, &out);
  }
  return out.Finish();
}

constexpr Builtin kLayoutFilters[] = {
    {"pprint", "", Pprint},
    {"wordwrap", "| width break_long_words wrapstring break_on_hyphens", WordWrap},
};

}  // namespace

BuiltinTable LayoutFilters() { return {std::begin(kLayoutFilters), std::end(kLayoutFilters)}; }

}  // namespace sessa::jinja
