#include "server/jinja/print.h"

#include <charconv>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/jinja/callables.h"
#include "server/jinja/iterate.h"
#include "server/jinja/text.h"

namespace sessa::jinja {
namespace {

using Kind = Value::Kind;

// Namespaces can hold each other without end, so their nesting is bounded here.
constexpr int kMaxNamespaces = 20;

void AppendQuoted(std::string_view text, TextBuilder* out) {
  const bool has_single = text.find('\'') != std::string_view::npos;
  const char quote = has_single && text.find('"') == std::string_view::npos ? '"' : '\'';
  out->Append(std::string_view(&quote, 1));
  size_t plain = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    const char32_t c = NextCharacter(text, &at);
    if (IsPrintable(c) && c != static_cast<char32_t>(quote) && c != '\\') continue;
    if (c == ' ') continue;
    out->Append(text.substr(plain, begin - plain));
    plain = at;
    switch (c) {
      case '\n': out->Append("\\n"); break;
      case '\r': out->Append("\\r"); break;
      case '\t': out->Append("\\t"); break;
      case '\\': out->Append("\\\\"); break;
      case '\'': out->Append("\\'"); break;
      case '"': out->Append("\\\""); break;
      default:
        out->Append(c < 0x100     ? absl::StrFormat("\\x%02x", static_cast<uint32_t>(c))
                    : c < 0x10000 ? absl::StrFormat("\\u%04x", static_cast<uint32_t>(c))
                                  : absl::StrFormat("\\U%08x", static_cast<uint32_t>(c)));
    }
  }
  out->Append(text.substr(plain));
  out->Append(std::string_view(&quote, 1));
}

class Printer {
 public:
  Printer(Budget* budget, TextBuilder* out) : budget_(budget), out_(out) {}

  void Repr(const Value& v) {
    if (!budget_->Step()) return;
    switch (v.kind()) {
      case Kind::kUndefined: return out_->Append("Undefined");
      case Kind::kText: return AppendQuoted(*v.text(), out_);
      case Kind::kMarkup:
        out_->Append("Markup(");
        AppendQuoted(*v.text(), out_);
        return out_->Append(")");
      case Kind::kList: return Items(v, "[", "]");
      case Kind::kTuple: return Items(v, "(", v.items()->size() == 1 ? ",)" : ")");
      case Kind::kDict: return Mapping(*v.dict());
      case Kind::kObject: return OfObject(v);
      default: return Scalar(v);
    }
  }

  void Scalar(const Value& v) {
    if (v.is_none()) out_->Append("None");
    if (v.boolean() != nullptr) out_->Append(*v.boolean() ? "True" : "False");
    if (v.integer() != nullptr) out_->Append(absl::StrCat(*v.integer()));
    if (v.real() != nullptr) out_->Append(ReprOf(*v.real()));
  }

 private:
  void Items(const Value& over, std::string_view open, std::string_view close) {
    out_->Append(open);
    Walk walk(over, budget_);
    Value item;
    for (bool first = true; walk.Next(&item); first = false) {
      if (!first) out_->Append(", ");
      Repr(item);
    }
    out_->Append(close);
  }

  void Mapping(const Dict& dict) {
    out_->Append("{");
    for (size_t i = 0; i < dict.size() && budget_->ok(); ++i) {
      if (i > 0) out_->Append(", ");
      Repr(dict[i].first);
      out_->Append(": ");
      Repr(dict[i].second);
    }
    out_->Append("}");
  }

  void OfObject(const Value& v) {
    const std::string type = TypeName(v);
    if (const auto* space = v.As<Namespace>()) {
      for (const Namespace* outer : namespaces_) {
        if (outer == space) return out_->Append("<Namespace {...}>");
      }
      if (namespaces_.size() == kMaxNamespaces) return budget_->Fail("namespaces are nested too deep");
      namespaces_.push_back(space);
      const Dict attributes = space->attributes;  // printing changes none, but a copy is safe
      out_->Append("<Namespace ");
      Mapping(attributes);
      out_->Append(">");
      namespaces_.pop_back();
    } else if (const auto* range = v.As<Range>()) {
      out_->Append(absl::StrCat("range(", range->start, ", ", range->stop));
      if (range->step != 1) out_->Append(absl::StrCat(", ", range->step));
      out_->Append(")");
    } else if (v.As<DictView>() != nullptr) {
      out_->Append(type);
      Items(v, "([", "])");
    } else if (const auto* callable = v.As<NamedCallable>()) {
      out_->Append(absl::StrCat("<", type, " '", View(callable->name()), "'>"));
    } else {
      out_->Append(absl::StrCat("<", type, " object>"));
    }
  }

  Budget* const budget_;
  TextBuilder* const out_;
  std::vector<const Namespace*> namespaces_;
};

}  // namespace

std::string ReprOf(double x) {
  if (std::isnan(x)) return "nan";
  if (std::isinf(x)) return x < 0 ? "-inf" : "inf";
  char buffer[40];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, x, std::chars_format::scientific).ptr;
  const std::string_view shortest(buffer, static_cast<size_t>(end - buffer));
  const size_t e = shortest.find('e');
  const int exponent = std::atoi(std::string(shortest.substr(e + 1)).c_str());
  if (exponent < -4 || exponent >= 16) return std::string(shortest);
  const auto fixed = std::to_chars(buffer, buffer + sizeof buffer, x, std::chars_format::fixed).ptr;
  std::string text(buffer, fixed);
  if (text.find('.') == std::string::npos) text += ".0";
  return text;
}

void AppendRepr(const Value& v, Budget* budget, TextBuilder* out) { Printer(budget, out).Repr(v); }

void AppendStr(const Value& v, Budget* budget, TextBuilder* out) {
  if (v.text() != nullptr) return out->Append(*v.text());
  if (!v.is_defined()) return;
  AppendRepr(v, budget, out);
}

Value Str(const Value& v, Budget* budget) {
  if (v.text() != nullptr) return v;
  TextBuilder out(budget);
  AppendStr(v, budget, &out);
  return out.Finish();
}

Value Repr(const Value& v, Budget* budget) {
  TextBuilder out(budget);
  AppendRepr(v, budget, &out);
  return out.Finish();
}

}  // namespace sessa::jinja
