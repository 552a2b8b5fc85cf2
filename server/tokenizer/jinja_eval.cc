#include "server/tokenizer/jinja_eval.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/tokenizer/jinja_builtins.h"
#include "server/tokenizer/utf8.h"

namespace sessa::jinja {
namespace {

namespace json = boost::json;
using E = Expression::Kind;

constexpr int64_t kMaxSteps = 4'000'000;
constexpr size_t kMaxOutput = 64 << 20;  // and of any one string on the way

class Evaluator {
 public:
  explicit Evaluator(const json::object& context) : context_(context), scopes_(1) {}

  absl::StatusOr<std::string> Run(const std::vector<Statement>& statements) {
    Body(statements);
    if (!status_.ok()) return status_;
    return std::move(out_);
  }

 private:
  using Scope = std::map<std::string, Value, std::less<>>;

  void Fail(int line, const std::string& what) {
    if (status_.ok())
      status_ = absl::InvalidArgumentError(absl::StrCat("chat template, line ", line, ": ", what));
  }
  bool Step(int line) {
    if (++steps_ > kMaxSteps) Fail(line, "takes too many steps");
    return status_.ok();
  }

  Value* FindVariable(std::string_view name) {
    for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
      if (auto it = scope->find(name); it != scope->end()) return &it->second;
    }
    return nullptr;
  }

  void Body(const std::vector<Statement>& statements) {
    for (const Statement& s : statements) {
      if (!Step(s.line)) return;
      switch (s.kind) {
        case Statement::Kind::kText: Write(s.line, s.text); break;
        case Statement::Kind::kOutput: Write(s.line, ToText(Eval(*s.expression))); break;
        case Statement::Kind::kIf: Body(Truth(Eval(*s.expression)) ? s.body : s.otherwise); break;
        case Statement::Kind::kFor: For(s); break;
        case Statement::Kind::kSet: Set(s); break;
      }
    }
  }

  void Write(int line, std::string_view text) {
    if (out_.size() + text.size() > kMaxOutput) return Fail(line, "the text becomes too long");
    out_ += text;
  }

  void For(const Statement& s) {
    const Value list = Eval(*s.expression);
    if (!list.has_value()) return Body(s.otherwise);  // an undefined list is empty
    if (list->is_object()) return Fail(s.line, "loops over mappings are not supported; use .items()");
    if (!list->is_array()) return Fail(s.line, "only a list can be looped over");
    std::vector<json::value> items;
    for (const json::value& item : list->as_array()) {
      if (s.condition != nullptr) {
        scopes_.push_back({{s.name, item}});
        const bool keep = Truth(Eval(*s.condition));
        scopes_.pop_back();
        if (!keep) continue;
      }
      items.push_back(item);
    }
    if (items.empty()) Body(s.otherwise);
    const int64_t n = static_cast<int64_t>(items.size());
    for (int64_t i = 0; i < n && Step(s.line); ++i) {
      json::object loop{{"index", i + 1}, {"index0", i},       {"first", i == 0},       {"last", i + 1 == n},
                        {"length", n},    {"revindex", n - i}, {"revindex0", n - i - 1}};
      if (i > 0) loop["previtem"] = items[i - 1];
      if (i + 1 < n) loop["nextitem"] = items[i + 1];
      scopes_.push_back({{s.name, items[i]}, {"loop", std::move(loop)}});
      Body(s.body);
      scopes_.pop_back();
    }
  }

  // A variable lives in the innermost loop, as in Jinja; what must outlive it is an attribute of a namespace.
  void Set(const Statement& s) {
    Value value = Eval(*s.expression);
    if (s.attribute.empty()) {
      scopes_.back()[s.name] = std::move(value);
      return;
    }
    Value* object = FindVariable(s.name);
    if (object == nullptr || !object->has_value() || !(*object)->is_object())
      return Fail(s.line, absl::StrCat("'", s.name, "' is no namespace"));
    (*object)->as_object()[s.attribute] = value.has_value() ? *std::move(value) : json::value();
  }

  Value Eval(const Expression& e) {
    if (!Step(e.line)) return {};
    switch (e.kind) {
      case E::kLiteral: return e.literal;
      case E::kName: {
        if (const Value* v = FindVariable(e.name)) return *v;
        const json::value* v = context_.if_contains(e.name);
        return v == nullptr ? Value() : Value(*v);
      }
      case E::kAttribute: return Member(e, Eval(*e.children[0]), json::value(e.name));
      case E::kIndex: return Member(e, Eval(*e.children[0]), Eval(*e.children[1]));
      case E::kSlice: return Slice(e);
      case E::kCall: return Call(e);
      case E::kFilter: {
        Value result;
        const Value of = Eval(*e.children[0]);
        if (status_.ok() && !CallFilter(e.name, of, Arguments(e), &result))
          Fail(e.line, absl::StrCat("filter '", e.name, "' is not supported here"));
        return result;
      }
      case E::kTest: {
        bool result = false;
        if (!CallTest(e.name, Eval(*e.children[0]), &result))
          Fail(e.line, absl::StrCat("test '", e.name, "' is not supported here"));
        return json::value(result);
      }
      case E::kUnary: return Unary(e);
      case E::kBinary: return Binary(e);
      case E::kTernary:
        if (Truth(Eval(*e.children[1]))) return Eval(*e.children[0]);
        return e.children[2] == nullptr ? Value() : Eval(*e.children[2]);
      case E::kList: {
        json::array list;
        for (const auto& child : e.children) list.push_back(Eval(*child).value_or(json::value()));
        return list;
      }
      case E::kDict: {
        json::object object;
        for (size_t i = 0; i + 1 < e.children.size(); i += 2) {
          const std::string key = ToText(Eval(*e.children[i]));
          object[key] = Eval(*e.children[i + 1]).value_or(json::value());
        }
        return object;
      }
    }
    return {};
  }

  std::vector<Value> Arguments(const Expression& e) {
    std::vector<Value> out;
    for (size_t i = 1; i < e.children.size(); ++i) out.push_back(Eval(*e.children[i]));
    for (const auto& [name, value] : e.named)
      out.push_back(Eval(*value));  // in order: those of default(value, boolean=true)
    return out;
  }

  Value Member(const Expression& e, const Value& of, const Value& key) {
    if (!of.has_value()) {
      Fail(e.line, absl::StrCat("a member '", ToText(key), "' of something undefined"));
      return {};
    }
    if (of->is_object() && key.has_value() && key->is_string()) {
      const json::value* v = of->as_object().if_contains(key->as_string());
      return v == nullptr ? Value() : Value(*v);
    }
    if (key.has_value() && key->is_int64() && (of->is_array() || of->is_string())) {
      const std::vector<json::value> items = Items(*of);
      const int64_t n = static_cast<int64_t>(items.size()),
                    i = key->as_int64() < 0 ? key->as_int64() + n : key->as_int64();
      return i >= 0 && i < n ? Value(items[i]) : Value();
    }
    return {};
  }

  // The items of a list, or the characters of a string.
  static std::vector<json::value> Items(const json::value& v) {
    std::vector<json::value> items;
    if (v.is_array()) items.assign(v.as_array().begin(), v.as_array().end());
    if (v.is_string()) {
      ForEachCodePoint(std::string_view(v.as_string().data(), v.as_string().size()), [&items](char32_t c) {
        std::string one;
        AppendUtf8(c, &one);
        items.emplace_back(json::string(one));
      });
    }
    return items;
  }

  // As Python's: negative bounds count from the end, and what is out of range is cut.
  Value Slice(const Expression& e) {
    const Value of = Eval(*e.children[0]);
    if (!of.has_value() || !(of->is_array() || of->is_string())) {
      Fail(e.line, "a slice of something that is neither list nor string");
      return {};
    }
    const std::vector<json::value> items = Items(*of);
    const int64_t n = static_cast<int64_t>(items.size());
    int64_t bounds[3] = {0, 0, 1};
    bool given[3] = {};
    for (int i = 2; i >= 0; --i) {
      if (e.children[i + 1] == nullptr) continue;
      const Value v = Eval(*e.children[i + 1]);
      if (!v.has_value() || v->is_null()) continue;
      if (!v->is_int64()) {
        Fail(e.line, "a bound of a slice is no integer");
        return {};
      }
      bounds[i] = v->as_int64();
      given[i] = true;
    }
    const int64_t step = bounds[2];
    if (step == 0 || step < -n - 1 || step > (int64_t{1} << 40)) {
      if (step == 0) Fail(e.line, "a slice's step is 0");
      if (step == 0) return {};
    }
    const auto clip = [&](int64_t x) {
      if (x < 0) x = x < -n ? -1 : x + n;
      return std::clamp<int64_t>(x, step < 0 ? -1 : 0, step < 0 ? n - 1 : n);
    };
    const int64_t begin = given[0]   ? std::max<int64_t>(clip(bounds[0]), step > 0 ? 0 : -1)
                          : step > 0 ? 0
                                     : n - 1;
    const int64_t end = given[1] ? clip(bounds[1]) : step > 0 ? n : -1;
    json::array list;
    const int64_t bounded = std::clamp<int64_t>(step, -n - 1, n + 1);
    for (int64_t i = begin; bounded > 0 ? i < end : i > end; i += bounded) list.push_back(items[i]);
    if (of->is_array()) return list;
    std::string text;
    for (const json::value& c : list) text += ToText(c);
    return json::value(json::string(text));
  }

  Value Call(const Expression& e) {
    const Expression& callee = *e.children[0];
    Value result;
    if (callee.kind == E::kAttribute) {
      const Value of = Eval(*callee.children[0]);
      const std::vector<Value> arguments = Arguments(e);
      if (status_.ok() && !CallMethod(callee.name, of, arguments, &result))
        Fail(e.line, absl::StrCat("method '", callee.name, "' is not supported here"));
      return result;
    }
    if (callee.kind != E::kName) {
      Fail(e.line, "this cannot be called");
      return {};
    }
    if (callee.name == "namespace" || callee.name == "dict") {
      json::object object;
      for (const auto& [name, value] : e.named) object[name] = Eval(*value).value_or(json::value());
      return object;
    }
    const std::vector<Value> arguments = Arguments(e);
    if (callee.name == "raise_exception") {
      if (status_.ok())
        status_ = absl::InvalidArgumentError(
            absl::StrCat("the chat template says: ", arguments.empty() ? "" : ToText(arguments[0])));
      return {};
    }
    if (callee.name == "range") return Range(e, arguments);
    Fail(e.line, absl::StrCat("function '", callee.name, "' is not known"));
    return {};
  }

  Value Range(const Expression& e, const std::vector<Value>& arguments) {
    int64_t bounds[3] = {0, 0, 1};
    for (size_t i = 0; i < arguments.size() && i < 3; ++i) {
      if (!arguments[i].has_value() || !arguments[i]->is_int64())
        Fail(e.line, "range takes integers");
      else
        bounds[i] = arguments[i]->as_int64();
    }
    if (arguments.empty() || arguments.size() > 3 || bounds[2] == 0)
      Fail(e.line, "range takes one to three integers");
    if (arguments.size() == 1) bounds[1] = bounds[0], bounds[0] = 0;
    json::array list;
    for (int64_t i = bounds[0];
         status_.ok() && (bounds[2] > 0 ? i < bounds[1] : i > bounds[1]) && Step(e.line);) {
      list.push_back(i);
      if (__builtin_add_overflow(i, bounds[2], &i)) break;
    }
    return list;
  }

  Value Unary(const Expression& e) {
    const Value v = Eval(*e.children[0]);
    if (e.name == "not") return json::value(!Truth(v));
    if (v.has_value() && v->is_int64() && v->as_int64() != INT64_MIN)
      return json::value(e.name == "-" ? -v->as_int64() : v->as_int64());
    if (v.has_value() && v->is_double()) return json::value(e.name == "-" ? -v->as_double() : v->as_double());
    Fail(e.line, absl::StrCat("'", e.name, "' of something that is no number"));
    return {};
  }

  Value Binary(const Expression& e) {
    const std::string& op = e.name;
    Value a = Eval(*e.children[0]);
    if (op == "and") return Truth(a) ? Eval(*e.children[1]) : a;
    if (op == "or") return Truth(a) ? a : Eval(*e.children[1]);
    const Value b = Eval(*e.children[1]);
    if (!status_.ok()) return {};
    if (op == "==") return json::value(Equal(a, b));
    if (op == "!=") return json::value(!Equal(a, b));
    if (op == "in" || op == "not in") return json::value(Contains(e, b, a) == (op == "in"));
    if (op == "~") return Join(e, ToText(a), ToText(b));
    if (!a.has_value() || !b.has_value()) {
      Fail(e.line, absl::StrCat("'", op, "' with something undefined"));
      return {};
    }
    if (a->is_string() && b->is_string()) {
      if (op == "+") return Join(e, ToText(a), ToText(b));
      const int order = a->as_string().compare(b->as_string());
      if (op == "<" || op == ">" || op == "<=" || op == ">=") return Order(op, order);
    }
    if (op == "+" && a->is_array() && b->is_array()) {
      json::array list = a->as_array();
      for (const json::value& item : b->as_array()) list.push_back(item);
      return list;
    }
    return Arithmetic(e, *a, *b);
  }

  Value Join(const Expression& e, const std::string& a, const std::string& b) {
    if (a.size() + b.size() > kMaxOutput) Fail(e.line, "a text becomes too long");
    return status_.ok() ? Value(json::value(json::string(a + b))) : Value();
  }
  static Value Order(std::string_view op, int order) {
    return json::value(op == "<" ? order < 0 : op == ">" ? order > 0 : op == "<=" ? order <= 0 : order >= 0);
  }

  Value Arithmetic(const Expression& e, const json::value& a, const json::value& b) {
    const std::string& op = e.name;
    const auto fail = [&](const char* why) -> Value {
      Fail(e.line, absl::StrCat("'", op, "' ", why));
      return {};
    };
    if (a.is_int64() && b.is_int64() && op != "/") {
      const int64_t x = a.as_int64(), y = b.as_int64();
      if (op == "<" || op == ">" || op == "<=" || op == ">=") return Order(op, x < y ? -1 : x > y);
      int64_t r = 0;
      if (op == "+") return __builtin_add_overflow(x, y, &r) ? fail("overflows") : Value(r);
      if (op == "-") return __builtin_sub_overflow(x, y, &r) ? fail("overflows") : Value(r);
      if (op == "*") return __builtin_mul_overflow(x, y, &r) ? fail("overflows") : Value(r);
      if (y == 0 || (x == INT64_MIN && y == -1)) return fail("divides by zero");
      const int64_t remainder = x % y, floor_remainder = remainder != 0 && (remainder < 0) != (y < 0)
                                                             ? remainder + y
                                                             : remainder;
      return op == "%" ? Value(floor_remainder) : Value((x - floor_remainder) / y);
    }
    if (!a.is_number() || !b.is_number()) return fail("of these kinds of values is not supported");
    const double x = a.to_number<double>(), y = b.to_number<double>();
    if (op == "<" || op == ">" || op == "<=" || op == ">=") return Order(op, x < y ? -1 : x > y);
    if (op == "+") return json::value(x + y);
    if (op == "-") return json::value(x - y);
    if (op == "*") return json::value(x * y);
    if (op == "/" && y != 0) return json::value(x / y);
    return fail("of these numbers is not supported");
  }

  bool Contains(const Expression& e, const Value& in, const Value& what) {
    if (!in.has_value() || !what.has_value()) return false;
    if (in->is_string() && what->is_string())
      return in->as_string().find(what->as_string()) != json::string::npos;
    if (in->is_object() && what->is_string()) return in->as_object().contains(what->as_string());
    if (in->is_array())
      return std::any_of(in->as_array().begin(), in->as_array().end(),
                         [&](const json::value& v) { return Equal(v, what); });
    Fail(e.line, "'in' needs a string, a list or a mapping");
    return false;
  }

  const json::object& context_;
  std::vector<Scope> scopes_;
  std::string out_;
  int64_t steps_ = 0;
  absl::Status status_;
};

}  // namespace

absl::StatusOr<std::string> Evaluate(const std::vector<Statement>& statements, const json::object& context) {
  return Evaluator(context).Run(statements);
}

}  // namespace sessa::jinja
