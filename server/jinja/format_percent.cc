// See format.h: '%s' % value.
#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "server/jinja/format.h"
#include "server/jinja/operators.h"
#include "server/jinja/print.h"
#include "server/jinja/text.h"

namespace sessa::jinja {
namespace {

constexpr int64_t kMaxWidth = 1'000'000;  // beyond it, an error

class PercentFormatter {
 public:
  PercentFormatter(const Value& format, const Value& values, Budget* budget)
      : format_(*format.text()),
        markup_(format.is_markup()),
        values_(values),
        budget_(budget),
        out_(budget) {}

  Value Run() {
    while (at_ < format_.size() && budget_->ok()) {
      const size_t percent = std::min(format_.find('%', at_), format_.size());
      out_.Append(format_.substr(at_, percent - at_));
      at_ = percent;
      if (at_ < format_.size()) Conversion();
    }
    const bool all = values_.is_tuple() ? next_ == values_.items()->size()
                                        : next_ > 0 || values_.dict() != nullptr || IsMapping();
    if (!all && budget_->ok()) budget_->Fail("not all arguments converted during string formatting");
    return markup_ ? out_.FinishMarkup() : out_.Finish();
  }

 private:
  // Python takes what can be subscripted and is neither a tuple nor a text for a mapping.
  bool IsMapping() const {
    return values_.kind() == Value::Kind::kList || values_.As<Range>() != nullptr || !values_.is_defined();
  }

  char Peek() const { return at_ < format_.size() ? format_[at_] : '\0'; }

  Value NextValue() {
    if (values_.is_tuple()) {
      if (next_ < values_.items()->size()) return (*values_.items())[next_++];
    } else if (next_++ == 0) {
      return values_;
    }
    budget_->Fail("not enough arguments for format string");
    return {};
  }

  Value NamedValue() {
    const size_t begin = ++at_;
    for (int depth = 1; at_ < format_.size(); ++at_) {
      if (format_[at_] == '(') ++depth;
      if (format_[at_] == ')' && --depth == 0) break;
    }
    if (at_ == format_.size() || values_.dict() == nullptr) {
      budget_->Fail(values_.dict() == nullptr ? "format requires a mapping" : "incomplete format key");
      return {};
    }
    const std::string_view key = format_.substr(begin, at_++ - begin);
    const size_t found = FindKey(*values_.dict(), key, budget_);
    if (found < values_.dict()->size()) return (*values_.dict())[found].second;
    budget_->Fail(absl::StrCat("there is no key '", View(key), "' to format"));
    return {};
  }

  int64_t Number() {
    if (Peek() == '*') {
      ++at_;
      const auto x = NextValue().AsInteger();
      if (!x.has_value()) budget_->Fail("* wants int");
      return x.value_or(0);
    }
    int64_t n = 0;
    while (std::isdigit(static_cast<unsigned char>(Peek())) && n <= kMaxWidth)
      n = n * 10 + (format_[at_++] - '0');
    return n;
  }

  void Conversion() {
    if (format_.substr(++at_, 1) == "%") {
      ++at_;
      return out_.Append("%");
    }
    const bool named = Peek() == '(';
    const Value of_name = named ? NamedValue() : Value();
    NumberStyle style;
    bool left = false;
    for (; at_ < format_.size() && std::string_view("-+ #0").find(Peek()) != std::string_view::npos; ++at_) {
      if (Peek() == '-') left = true;
      if (Peek() == '+' || (Peek() == ' ' && style.sign == '-')) style.sign = Peek();
      if (Peek() == '#') style.alternate = true;
      if (Peek() == '0') style.zero = true;
    }
    int64_t width = Number();
    if (width < 0) left = true, width = width < -kMaxWidth ? kMaxWidth + 1 : -width;
    if (Peek() == '.') {
      ++at_;
      style.precision = static_cast<int>(std::clamp<int64_t>(Number(), 0, kMaxWidth + 1));
    }
    while (Peek() == 'h' || Peek() == 'l' || Peek() == 'L') ++at_;
    const char type = Peek();
    if (type == '\0') return budget_->Fail("incomplete format");
    ++at_;
    if (width > kMaxWidth || style.precision > kMaxWidth) return budget_->Fail("a format is too wide");
    style.width = width;
    if (left) style.zero = false;
    const Value value = named ? of_name : NextValue();
    if (budget_->ok()) Pad(Text(type, value, style), width, left);
  }

  Value Text(char type, const Value& v, NumberStyle style) {
    switch (type) {
      case 's':
      case 'r':
      case 'a': {
        const Value text = type == 's' ? Str(v, budget_) : Repr(v, budget_);
        if (!budget_->ok() || style.precision < 0) return Escaped(text);
        const std::string& all = *text.text();
        return Escaped(budget_->Text(std::string_view(all).substr(0, ByteOf(all, style.precision))));
      }
      case 'c':
        if (v.text() != nullptr && CountCharacters(*v.text(), budget_) == 1) return v;
        if (v.AsInteger().has_value() && *v.AsInteger() >= 0 && *v.AsInteger() < 0x110000) {
          std::string character;
          AppendCharacter(static_cast<char32_t>(*v.AsInteger()), &character);
          return budget_->Text(character);
        }
        budget_->Fail("%c requires int or char");
        return {};
      default: break;
    }
    const bool integral = std::string_view("diuoxX").find(type) != std::string_view::npos;
    if (!integral && std::string_view("eEfFgG").find(type) == std::string_view::npos) {
      budget_->Fail(absl::StrCat("unsupported format character '", std::string(1, type), "'"));
      return {};
    }
    if (!v.is_number() || (integral && type != 'd' && type != 'i' && type != 'u' && v.real() != nullptr)) {
      budget_->Fail(
          absl::StrCat("%", std::string(1, type), " format: a number is required, not ", TypeName(v)));
      return {};
    }
    style.type = type == 'i' || type == 'u' ? 'd' : type;
    if (!integral) return budget_->Text(FormatNumber(v, style));
    if (v.real() == nullptr) return Integer(v, style);
    const double whole = std::trunc(*v.real());
    if (std::fabs(whole) < 9.2e18) return Integer(Value(static_cast<int64_t>(whole)), style);
    budget_->Fail("cannot convert float to integer");
    return {};
  }

  // The precision of an integer is its least number of digits.
  Value Integer(const Value& v, NumberStyle style) {
    const std::string bare = FormatNumber(v, NumberStyle{.type = style.type});
    const auto digits = static_cast<int64_t>(bare.size() - (bare[0] == '-' ? 1 : 0));
    if (style.precision > digits) {
      NumberStyle narrow = style;
      narrow.width = 0;
      const auto around = static_cast<int64_t>(FormatNumber(v, narrow).size()) - digits;
      style.width = std::max(style.zero ? style.width : 0, style.precision + around);
      style.zero = true;
    }
    return budget_->Text(FormatNumber(v, style));
  }

  Value Escaped(const Value& text) {
    if (!markup_ || text.text() == nullptr || text.is_markup()) return text;
    TextBuilder out(budget_);
    AppendEscaped(*text.text(), &out);
    return out.Finish();
  }

  void Pad(const Value& text, int64_t width, bool left) {
    if (text.text() == nullptr) return;
    const int64_t pad = width > 0 ? width - CountCharacters(*text.text(), budget_) : 0;
    const std::string blanks(static_cast<size_t>(std::max<int64_t>(pad, 0)), ' ');
    if (!left) out_.Append(blanks);
    out_.Append(*text.text());
    if (left) out_.Append(blanks);
  }

  const std::string_view format_;
  const bool markup_;
  const Value& values_;
  Budget* const budget_;
  TextBuilder out_;
  size_t at_ = 0, next_ = 0;  // in the format, and of the values
};

}  // namespace

Value FormatPercent(const Value& format, const Value& values, Budget* budget) {
  return PercentFormatter(format, values, budget).Run();
}

}  // namespace sessa::jinja
