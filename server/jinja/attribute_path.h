// 'a.0.b', as filters take the name of an attribute; and keys to compare by.
#pragma once

#include <vector>

#include "server/jinja/budget.h"
#include "server/jinja/value.h"

namespace sessa::jinja {

class AttributePath {
 public:
  // `path`: a text, an integer, or none for the item itself. Several, cut at commas, make a list of values.
  explicit AttributePath(const Value& path, Budget* budget, bool several = false);

  // The attribute of `item`; `otherwise` in place of one that is undefined, unless it is none.
  Value Of(Value item, Budget* budget, const Value& otherwise = Value::None()) const;
  // What sort and others compare by: letters' case aside unless `case_sensitive`.
  Value KeyOf(const Value& item, bool case_sensitive, Budget* budget) const;

 private:
  static Value Walk(const List& keys, Value item, Budget* budget, const Value& otherwise);

  std::vector<List> paths_;
  bool several_ = false;
};

}  // namespace sessa::jinja
