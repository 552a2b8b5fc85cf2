// See own_names.h. What a block does itself is looked at first, in order, then the blocks inside of it, which
// see all of its names: as Jinja2 does it.
#include "server/jinja/own_names.h"

#include <algorithm>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"

namespace sessa::jinja {
namespace {

enum class Begins { kOuter, kUnset };  // with what there is outside, or without a value

// The names of a block so far, or what a branch of an `if` adds to them.
class Names {
 public:
  explicit Names(const Names* outer) : outer_(outer) {}
  static Names Branch(const Names* before) {
    Names branch(before->outer_);
    branch.before_ = before;
    return branch;
  }

  void Load(Name name) {
    if (!IsKnown(name)) begins_[name] = Begins::kOuter;
  }
  void Store(Name name) {
    stored_.insert(name);
    if (!IsOwn(name)) begins_[name] = IsKnownOutside(name) ? Begins::kOuter : Begins::kUnset;
  }
  void Parameter(Name name) {
    stored_.insert(name);
    begins_[name] = Begins::kOuter;  // it has a value at once
  }
  void Join(const std::vector<Names>& branches) {
    absl::flat_hash_set<Name> stored;
    for (const Names& branch : branches) {
      for (const Name name : branch.stored_) {
        if (!IsStored(name)) stored.insert(name);
      }
    }
    for (const Names& branch : branches) {
      for (const auto& [name, begins] : branch.begins_) begins_[name] = begins;
      stored_.insert(branch.stored_.begin(), branch.stored_.end());
    }
    for (const Name name : stored) begins_[name] = Begins::kOuter;
  }
  std::vector<Name> Unset() const {
    std::vector<Name> names;
    for (const auto& [name, begins] : begins_) {
      if (begins == Begins::kUnset) names.push_back(name);
    }
    std::sort(names.begin(), names.end(), [](Name a, Name b) { return *a < *b; });
    return names;
  }

 private:
  bool IsOwn(Name name) const {
    return begins_.contains(name) || (before_ != nullptr && before_->IsOwn(name));
  }
  bool IsStored(Name name) const {
    return stored_.contains(name) || (before_ != nullptr && before_->IsStored(name));
  }
  bool IsKnownOutside(Name name) const { return outer_ != nullptr && outer_->IsKnown(name); }
  bool IsKnown(Name name) const { return IsOwn(name) || IsKnownOutside(name); }

  const Names* outer_;
  const Names* before_ = nullptr;  // of a branch: the block's, before the `if`
  absl::flat_hash_map<Name, Begins> begins_;
  absl::flat_hash_set<Name> stored_;
};

void Read(const ExpressionPtr& e, Names* names) {
  if (e == nullptr) return;
  if (e->kind == Expression::Kind::kName) names->Load(e->name);
  for (const ExpressionPtr& child : e->children) Read(child, names);
  if (e->arguments == nullptr) return;
  for (const ExpressionPtr& argument : e->arguments->positional) Read(argument, names);
  for (const auto& [key, argument] : e->arguments->named) Read(argument, names);
  Read(e->arguments->more, names);
  Read(e->arguments->more_named, names);
}

void Put(const Target& target, bool is_parameter, Names* names) {
  switch (target.kind) {
    case Target::Kind::kName: is_parameter ? names->Parameter(target.name) : names->Store(target.name); break;
    case Target::Kind::kMember: names->Load(target.name); break;
    case Target::Kind::kTuple:
      for (const Target& item : target.items) Put(item, is_parameter, names);
  }
}

void Look(const Block& block, Names* names);

void LookAtBranches(const Statement& s, Names* names) {
  Read(s.branches[0].condition, names);
  std::vector<Names> branches(3, Names::Branch(names));  // if, every elif, else
  Look(s.branches[0].body, &branches[0]);
  for (size_t i = 1; i < s.branches.size(); ++i) {
    const Branch& branch = s.branches[i];
    if (branch.condition == nullptr) {
      Look(branch.body, &branches[2]);
      continue;
    }
    Read(branch.condition, &branches[1]);
    std::vector<Names> one(1, Names::Branch(&branches[1]));
    Look(branch.body, &one[0]);
    branches[1].Join(one);
  }
  names->Join(branches);
}

// What a block does itself; nested ones add what they read and set outside of themselves.
void Look(const Block& block, Names* names) {
  for (const Statement& s : block) {
    switch (s.kind) {
      case Statement::Kind::kIf: LookAtBranches(s, names); break;
      case Statement::Kind::kSetBlock: Put(s.target, false, names); break;
      case Statement::Kind::kMacro: names->Store(s.signature->name); break;
      case Statement::Kind::kSet:
        Read(s.expression, names);
        Put(s.target, false, names);
        break;
      default:  // kOutput, and what a nested block is of
        Read(s.expression, names);
        for (const ExpressionPtr& value : s.values) Read(value, names);
    }
  }
}

void Descend(Block* block, const Names& outer);

// One block inside of `outer`; `begin` says what it has before its body.
template <typename Begin>
std::vector<Name> Inside(Block* body, const Names& outer, Begin begin) {
  Names names(&outer);
  begin(&names);
  Look(*body, &names);
  Descend(body, names);
  return names.Unset();
}

void Descend(Block* block, const Names& outer) {
  for (Statement& s : *block) {
    for (Branch& branch : s.branches) Descend(&branch.body, outer);
    if (s.body.empty() && s.otherwise.empty()) continue;
    s.unset = Inside(&s.body, outer, [&s](Names* names) {
      if (s.kind == Statement::Kind::kFor) Put(s.target, true, names);
      if (s.kind == Statement::Kind::kFilter) Read(s.expression, names);
      for (const Target& target : s.targets) Put(target, true, names);
      if (s.signature == nullptr) return;
      for (const Name parameter : s.signature->parameters) names->Parameter(parameter);
      for (const ExpressionPtr& otherwise : s.signature->defaults) Read(otherwise, names);
    });
    s.otherwise_unset = Inside(&s.otherwise, outer, [](Names*) {});
  }
}

}  // namespace

std::vector<Name> FindOwnNames(Block* body) {
  Names names(nullptr);
  Look(*body, &names);
  Descend(body, names);
  return names.Unset();
}

}  // namespace sessa::jinja
