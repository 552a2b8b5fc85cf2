#include "server/jinja/attribute_path.h"

#include <algorithm>

#include "absl/strings/str_split.h"
#include "server/jinja/members.h"
#include "server/jinja/text.h"

namespace sessa::jinja {

AttributePath::AttributePath(const Value& path, Budget* budget, bool several) : several_(several) {
  if (path.text() == nullptr) {
    paths_.emplace_back();
    if (!path.is_none()) paths_.back().push_back(path);
    return;
  }
  budget->StepBytes(static_cast<int64_t>(path.text()->size()));
  const auto add = [&](absl::string_view one) {
    paths_.emplace_back();
    for (absl::string_view part : absl::StrSplit(one, '.')) {
      if (!budget->Step()) return;
      const bool digits =
          !part.empty() && part.size() < 18 &&
          std::all_of(part.begin(), part.end(), [](unsigned char c) { return std::isdigit(c); });
      const std::string key(part);
      paths_.back().push_back(digits ? Value(int64_t{std::atoll(key.c_str())}) : budget->Text(key));
    }
  };
  if (!several) {
    add(View(*path.text()));
    return;
  }
  for (absl::string_view one : absl::StrSplit(View(*path.text()), ',')) {
    if (budget->ok()) add(one);
  }
}

Value AttributePath::Walk(const List& keys, Value item, Budget* budget, const Value& otherwise) {
  for (const Value& key : keys) {
    item = Item(item, key, nullptr, budget);
    if (!budget->ok()) return {};
    if (!item.is_defined() && !otherwise.is_none()) item = otherwise;
  }
  return item;
}

Value AttributePath::Of(Value item, Budget* budget, const Value& otherwise) const {
  return Walk(paths_[0], std::move(item), budget, otherwise);
}

Value AttributePath::KeyOf(const Value& item, bool case_sensitive, Budget* budget) const {
  List keys;
  for (const auto& parts : paths_) {
    Value key = Walk(parts, item, budget, Value::None());
    if (!case_sensitive && key.text() != nullptr && budget->ok())
      key = ChangeCase(*key.text(), Case::kLower, budget);
    keys.push_back(std::move(key));
  }
  return several_ ? budget->MakeList(std::move(keys)) : keys[0];
}

}  // namespace sessa::jinja
