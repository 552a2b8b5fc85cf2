// The operations of a step that have not been enqueued yet: functions and their arguments. Two lists are
// equal when they would call the same functions with equal arguments, compared member by member, so whatever
// the launches depend on, and the functions know nothing else, is part of what is compared. Not thread-safe.
#pragma once

#include <concepts>
#include <cstddef>
#include <memory>
#include <new>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "kernels/round.h"

namespace sessa::cuda {

class OperationList {
 public:
  // Arguments are copied: pointers among them name device memory, or what outlives the list and never
  // changes.
  template <class... P, class... A>
  void Add(void (*function)(P...), const A&... args) {
    using Operation = Call<std::decay_t<P>...>;
    static_assert((std::equality_comparable<std::decay_t<P>> && ...),
                  "arguments are what a list is known by");
    static_assert(std::is_trivially_destructible_v<Operation> && sizeof(Operation) <= kChunkBytes &&
                  alignof(Operation) <= alignof(std::max_align_t));
    void* const at = Place(sizeof(Operation));
    new (at) Operation{reinterpret_cast<void (*)()>(function), {static_cast<std::decay_t<P>>(args)...}};
    entries_.push_back({&kKind<Operation, void (*)(P...)>, at});
  }
  void Run() const {
    for (const Entry& e : entries_) e.kind->run(e.operation);
  }
  bool empty() const { return entries_.empty(); }
  void Clear() {
    entries_.clear();
    chunk_ = used_ = 0;
  }

  friend bool operator==(const OperationList& a, const OperationList& b) {
    if (a.entries_.size() != b.entries_.size()) return false;
    for (size_t i = 0; i < a.entries_.size(); ++i) {
      const Entry &x = a.entries_[i], &y = b.entries_[i];
      if (x.kind != y.kind || !x.kind->equal(x.operation, y.operation)) return false;
    }
    return true;
  }

 private:
  template <class... P>
  struct Call {
    void (*function)();
    std::tuple<P...> args;
    bool operator==(const Call&) const = default;
  };
  // What is known of an operation once its type is forgotten: one for each type of function.
  struct Kind {
    void (*run)(const void* operation);
    bool (*equal)(const void* a, const void* b);
  };
  template <class Operation, class Function>
  static constexpr Kind kKind = {[](const void* operation) {
                                   const Operation& o = *static_cast<const Operation*>(operation);
                                   std::apply(reinterpret_cast<Function>(o.function), o.args);
                                 },
                                 [](const void* a, const void* b) {
                                   return *static_cast<const Operation*>(a) ==
                                          *static_cast<const Operation*>(b);
                                 }};
  struct Entry {
    const Kind* kind;
    const void* operation;
  };

  // A decode step of 32 layers takes about 300 KiB. Chunks never move, and are used again.
  static constexpr size_t kChunkBytes = 64 << 10;
  struct Chunk {
    alignas(std::max_align_t) std::byte bytes[kChunkBytes];
  };
  void* Place(size_t bytes) {
    bytes = RoundUp(bytes, alignof(std::max_align_t));
    if (used_ + bytes > kChunkBytes) ++chunk_, used_ = 0;
    if (chunk_ == chunks_.size()) chunks_.push_back(std::make_unique_for_overwrite<Chunk>());
    return chunks_[chunk_]->bytes + std::exchange(used_, used_ + bytes);
  }

  std::vector<Entry> entries_;
  std::vector<std::unique_ptr<Chunk>> chunks_;
  size_t chunk_ = 0, used_ = 0;  // the chunk in use, and how much of it
};

}  // namespace sessa::cuda
