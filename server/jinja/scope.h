// The evaluator's variables, and the guards that put its state back.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "server/jinja/evaluator.h"

namespace sessa::jinja {

struct Evaluator::Scope {
  explicit Scope(Scope* parent) : parent(parent) {}
  Scope* const parent;
  std::vector<std::pair<Name, Value>> variables;
  bool is_kept = false;  // a macro or loop refers to it, maybe for longer than its block runs
};

// A scope inside of `parent` for as long as this lives.
class Evaluator::InScope {
 public:
  InScope(Evaluator* evaluator, Scope* parent)
      : evaluator_(evaluator), outer_(evaluator->scope_), scope_(std::make_unique<Scope>(parent)) {
    evaluator->scope_ = scope_.get();
  }
  ~InScope() {
    Leave();
    evaluator_->scope_ = outer_;
  }
  InScope(const InScope&) = delete;
  InScope& operator=(const InScope&) = delete;

  Scope* scope() { return scope_.get(); }
  // Empty again, for a loop's next item.
  void Renew() {
    if (!scope_->is_kept) return scope_->variables.clear();
    Scope* const parent = scope_->parent;
    Leave();
    scope_ = std::make_unique<Scope>(parent);
    evaluator_->scope_ = scope_.get();
  }

 private:
  void Leave() {
    if (!scope_->is_kept) return;
    const int64_t num_bytes =
        static_cast<int64_t>(sizeof(Scope) + scope_->variables.capacity() * sizeof(scope_->variables[0]));
    if (evaluator_->budget_->Take(num_bytes)) evaluator_->kept_bytes_ += num_bytes;
    evaluator_->kept_.push_back(std::move(scope_));
  }

  Evaluator* const evaluator_;
  Scope* const outer_;
  std::unique_ptr<Scope> scope_;
};

// Takes what is written, for as long as this lives.
class Evaluator::Capture {
 public:
  explicit Capture(Evaluator* evaluator)
      : evaluator_(evaluator), outer_(evaluator->out_), text_(evaluator->budget_) {
    evaluator->out_ = &text_;
  }
  ~Capture() { evaluator_->out_ = outer_; }
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;

  Value Finish() { return text_.Finish(); }

 private:
  Evaluator* const evaluator_;
  TextBuilder* const outer_;
  TextBuilder text_;
};

}  // namespace sessa::jinja
