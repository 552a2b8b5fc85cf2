#include "server/jinja/iterate.h"

#include "absl/strings/str_cat.h"
#include "server/jinja/text.h"

namespace sessa::jinja {

bool IsIterable(const Value& v) {
  if (v.object() == nullptr)
    return v.text() != nullptr || v.items() != nullptr || v.dict() != nullptr || !v.is_defined();
  return v.As<Iterator>() != nullptr || v.As<Range>() != nullptr || v.As<DictView>() != nullptr;
}

Walk::Walk(Value over, Budget* budget) : over_(std::move(over)), budget_(budget) {
  if (!IsIterable(over_)) budget->Fail(absl::StrCat("'", TypeName(over_), "' object is not iterable"));
}

bool Walk::Next(Value* item) {
  if (!budget_->Step()) return false;
  if (const List* items = over_.items()) {
    if (at_ == items->size()) return false;
    *item = (*items)[at_++];
    return true;
  }
  if (const std::string* text = over_.text()) {
    if (at_ == text->size()) return false;
    const size_t size = CharacterSize(*text, at_);
    const std::string_view character = std::string_view(*text).substr(at_, size);
    *item =
        over_.is_markup() ? Value::MarkupOf(budget_->Text(character).text_node()) : budget_->Text(character);
    at_ += size;
    return budget_->ok();
  }
  if (over_.object() == nullptr && over_.dict() == nullptr) return false;  // undefined: nothing
  if (auto* iterator = over_.As<Iterator>()) return iterator->Next(item, budget_) && budget_->ok();
  if (const auto* range = over_.As<Range>()) {
    if (static_cast<int64_t>(at_) == range->length) return false;
    *item = Value(range->At(static_cast<int64_t>(at_++)));
    return true;
  }
  const auto* view = over_.As<DictView>();
  const Dict& dict = view != nullptr ? *view->dict.dict() : *over_.dict();
  if (at_ == dict.size()) return false;
  const auto& [key, value] = dict[at_++];
  if (view == nullptr || view->what == DictView::What::kKeys)
    *item = key;
  else
    *item = view->what == DictView::What::kValues ? value : budget_->MakeTuple({key, value});
  return budget_->ok();
}

Value ListOf(const Value& over, Budget* budget) {
  ListBuilder out(budget);
  Walk walk(over, budget);
  for (Value item; walk.Next(&item);) out.Append(item);
  return out.Finish();
}

}  // namespace sessa::jinja
