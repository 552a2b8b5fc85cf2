// See format.h: '{}'.format(value), and the specifications of its fields.
#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "server/jinja/format.h"
#include "server/jinja/members.h"
#include "server/jinja/operators.h"
#include "server/jinja/print.h"
#include "server/jinja/text.h"

namespace sessa::jinja {
namespace {

constexpr int64_t kMaxWidth = 1'000'000;  // beyond it, an error

// [[fill]align][sign][#][0][width][grouping][.precision][type]
struct Spec {
  std::string fill = " ";
  char align = 0, type = 0;
  bool has_sign = false;
  NumberStyle number;
};

bool IsAlign(char c) { return c == '<' || c == '>' || c == '^' || c == '='; }

int64_t Digits(std::string_view* rest) {
  int64_t n = 0;
  while (!rest->empty() && std::isdigit(static_cast<unsigned char>(rest->front()))) {
    n = std::min(n * 10 + (rest->front() - '0'), kMaxWidth + 1);
    rest->remove_prefix(1);
  }
  return n;
}

bool ParseSpec(std::string_view text, Budget* budget, Spec* spec) {
  const auto take = [&text](std::string_view any) {
    if (text.empty() || any.find(text.front()) == std::string_view::npos) return '\0';
    const char c = text.front();
    text.remove_prefix(1);
    return c;
  };
  const size_t first = text.empty() ? 0 : CharacterSize(text, 0);
  if (first < text.size() && IsAlign(text[first])) {
    spec->fill = text.substr(0, first);
    spec->align = text[first];
    text.remove_prefix(first + 1);
  } else {
    spec->align = take("<>^=");
  }
  if (const char sign = take("+- ")) spec->number.sign = sign, spec->has_sign = true;
  spec->number.alternate = take("#") != 0;
  if (take("0") != 0) {
    if (spec->align == 0) spec->align = '=', spec->fill = "0";
  }
  spec->number.width = Digits(&text);
  spec->number.grouping = take(",_");
  if (take(".") != 0) {
    if (text.empty() || !std::isdigit(static_cast<unsigned char>(text.front())))
      return budget->Fail("Format specifier missing precision"), false;
    spec->number.precision = static_cast<int>(Digits(&text));
  }
  if (!text.empty()) spec->type = text.front(), text.remove_prefix(1);
  if (!text.empty()) return budget->Fail("Invalid format specifier"), false;
  if (spec->number.width > kMaxWidth || spec->number.precision > kMaxWidth)
    return budget->Fail("a format is too wide"), false;
  return true;
}

Value Aligned(std::string_view text, const Spec& spec, char align, Budget* budget) {
  const int64_t pad = spec.number.width - CountCharacters(text, budget);
  if (pad <= 0) return budget->Text(text);
  const int64_t before = align == '<' ? 0 : align == '^' ? pad / 2 : pad;
  TextBuilder out(budget);
  for (int64_t i = 0; i < before && budget->ok(); ++i) out.Append(spec.fill);
  out.Append(text);
  for (int64_t i = before; i < pad && budget->ok(); ++i) out.Append(spec.fill);
  return out.Finish();
}

Value Unknown(const Spec& spec, const Value& v, Budget* budget) {
  budget->Fail(absl::StrCat("Unknown format code '", std::string(1, spec.type), "' for object of type '",
                            TypeName(v), "'"));
  return {};
}

Value FormatOfNumber(const Value& v, Spec spec, Budget* budget) {
  const bool integer = v.AsInteger().has_value();
  NumberStyle& style = spec.number;
  if (spec.type == 0 && !integer) {
    style.type = style.precision < 0 ? 'r' : 'g';
  } else if (spec.type == 0 || spec.type == 'n') {
    style.type = integer ? 'd' : 'g';
  } else {
    style.type = spec.type;
  }
  if (integer && spec.type == 'c') {
    std::string character;
    AppendCharacter(static_cast<char32_t>(std::clamp<int64_t>(*v.AsInteger(), 0, 0x10ffff)), &character);
    return Aligned(character, spec, spec.align == 0 ? '<' : spec.align, budget);
  }
  const bool integral = std::string_view("doxXb").find(style.type) != std::string_view::npos;
  if (!integral && std::string_view("eEfFgG%r").find(style.type) == std::string_view::npos)
    return Unknown(spec, v, budget);
  if (integral && !integer) return Unknown(spec, v, budget);
  if (integral && style.precision >= 0) {
    budget->Fail("Precision not allowed in integer format specifier");
    return {};
  }
  style.zero = spec.align == '=' && spec.fill == "0";
  if (!style.zero && spec.align == '=') {  // the fill goes between the sign and the digits
    const std::string bare = FormatNumber(v, style);
    const size_t sign = std::min(bare.find_first_of("0123456789in"), bare.size());
    Spec digits = spec;
    digits.number.width -= static_cast<int64_t>(sign);
    const Value padded = Aligned(std::string_view(bare).substr(sign), digits, '>', budget);
    if (padded.text() == nullptr) return {};
    return budget->Text(bare.substr(0, sign) + *padded.text());
  }
  // A real without a type keeps a digit after the point, where 'g' drops it.
  std::string text = FormatNumber(v, style);
  if (spec.type == 0 && style.type == 'g' && text.find_first_of(".en") == std::string::npos) text += ".0";
  return Aligned(text, spec, spec.align == 0 ? '>' : spec.align, budget);
}

class BraceFormatter {
 public:
  BraceFormatter(const Arguments& arguments, Budget* budget) : arguments_(arguments), budget_(budget) {}

  // Python allows one level of fields inside of a field's specification.
  void Append(std::string_view format, int depth, TextBuilder* out) {
    if (depth > 2) return budget_->Fail("Max string recursion exceeded");
    for (size_t at = 0; at < format.size() && budget_->ok();) {
      const size_t brace = std::min(format.find_first_of("{}", at), format.size());
      out->Append(format.substr(at, brace - at));
      if (brace == format.size()) return;
      at = brace + 1;
      if (at < format.size() && format[at] == format[brace]) {
        out->Append(format.substr(at++, 1));
        continue;
      }
      if (format[brace] == '}') return budget_->Fail("Single '}' encountered in format string");
      size_t end = at;
      for (int open = 1; end < format.size(); ++end) {
        if (format[end] == '{') ++open;
        if (format[end] == '}' && --open == 0) break;
      }
      if (end == format.size()) return budget_->Fail("expected '}' before end of string");
      Field(format.substr(at, end - at), depth, out);
      at = end + 1;
    }
  }

 private:
  void Field(std::string_view field, int depth, TextBuilder* out) {
    // The name ends at ! or : outside of brackets.
    size_t name = 0;
    for (bool inside = false; name < field.size(); ++name) {
      if (field[name] == '[') inside = true;
      if (field[name] == ']') inside = false;
      if (!inside && (field[name] == '!' || field[name] == ':')) break;
    }
    Value value = Find(field.substr(0, name));
    std::string_view rest = field.substr(name);
    if (rest.starts_with('!')) {
      const char conversion = rest.size() > 1 ? rest[1] : '\0';
      if (conversion != 's' && conversion != 'r' && conversion != 'a')
        return budget_->Fail("Unknown conversion specifier");
      value = conversion == 's' ? Str(value, budget_) : Repr(value, budget_);
      rest.remove_prefix(2);
      if (!rest.empty() && rest[0] != ':') return budget_->Fail("expected ':' after conversion specifier");
    }
    TextBuilder spec(budget_);
    if (!rest.empty()) Append(rest.substr(1), depth + 1, &spec);
    const Value text = budget_->ok() ? FormatField(value, spec.Release(), budget_) : Value();
    if (text.text() != nullptr) out->Append(*text.text());
  }

  Value Find(std::string_view name) {
    const size_t end = std::min(name.find_first_of(".["), name.size());
    Value value = First(name.substr(0, end));
    for (name.remove_prefix(end); !name.empty() && budget_->ok();) {
      const bool index = name[0] == '[';
      const size_t stop = index ? name.find(']') : std::min(name.find_first_of(".[", 1), name.size());
      if (stop == std::string_view::npos || stop == 1) {
        budget_->Fail("Empty attribute in format string");
        return {};
      }
      const std::string key(name.substr(1, stop - 1));
      if (index) {
        const bool digits =
            std::all_of(key.begin(), key.end(), [](unsigned char c) { return std::isdigit(c); });
        const Value item =
            digits && key.size() < 18 ? Value(int64_t{std::atoll(key.c_str())}) : budget_->Text(key);
        value = Item(value, item, nullptr, budget_);
      } else {
        value = Attribute(value, &key, budget_);
        if (!value.is_defined()) value = Value();  // `key` does not outlive it
      }
      name.remove_prefix(index ? stop + 1 : stop);
    }
    return value;
  }

  Value First(std::string_view name) {
    const bool digits =
        std::all_of(name.begin(), name.end(), [](unsigned char c) { return std::isdigit(c); });
    if (digits) {
      if (name.empty() ? numbered_ : next_ > 0) {
        budget_->Fail("cannot mix numbered fields with automatic ones");
        return {};
      }
      numbered_ = numbered_ || !name.empty();
      const size_t index =
          name.empty() ? next_++ : static_cast<size_t>(std::atoll(std::string(name.substr(0, 9)).c_str()));
      if (index < arguments_.positional.size()) return arguments_.positional[index];
      budget_->Fail("Replacement index out of range for positional args tuple");
      return {};
    }
    for (const auto& [key, value] : arguments_.named) {
      if (key == name) return value;
    }
    budget_->Fail(absl::StrCat("there is no argument '", View(name), "' to format"));
    return {};
  }

  const Arguments& arguments_;
  Budget* const budget_;
  size_t next_ = 0;
  bool numbered_ = false;
};

}  // namespace

Value FormatField(const Value& value, std::string_view spec_text, Budget* budget) {
  if (spec_text.empty()) return Str(value, budget);
  Spec spec;
  if (!ParseSpec(spec_text, budget, &spec)) return {};
  if (value.boolean() != nullptr && spec.type == 0) {
    // As Python, which formats a bool as an integer unless there is no specification at all.
    return FormatOfNumber(Value(*value.AsInteger()), spec, budget);
  }
  if (value.is_number()) return FormatOfNumber(value, spec, budget);
  if (value.text() == nullptr) {
    budget->Fail(absl::StrCat("unsupported format string passed to ", TypeName(value), ".__format__"));
    return {};
  }
  if (spec.type != 0 && spec.type != 's') return Unknown(spec, value, budget);
  if (spec.has_sign || spec.number.alternate || spec.number.grouping != 0 ||
      (spec.align == '=' && spec.fill != "0")) {
    budget->Fail("a text takes no sign, grouping or '=' in its format");
    return {};
  }
  const char align = spec.align == 0 || spec.align == '=' ? '<' : spec.align;
  std::string_view text = *value.text();
  if (spec.number.precision >= 0) text = text.substr(0, ByteOf(text, spec.number.precision));
  return Aligned(text, spec, align, budget);
}

Value FormatBraces(const Value& format, const Arguments& arguments, Budget* budget) {
  TextBuilder out(budget);
  BraceFormatter(arguments, budget).Append(*format.text(), 1, &out);
  return format.is_markup() ? out.FinishMarkup() : out.Finish();
}

}  // namespace sessa::jinja
